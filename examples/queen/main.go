// Command queen is a small daemon over the registry: it watches the fleet, notes what each
// machine has, and makes backups. It shows how a daemon uses the packages; read it from the
// top.
//
// It runs without a terminal and without a keyring: the vault opens by the systemd credential
// rbee-vault, an age identity that `rbee-vault slot add credential` makes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func main() {
	var q queen
	flag.StringVar(&q.db, "db", os.Getenv("RBEE_VAULT_DB"), "the vault")
	flag.StringVar(&q.health, "health", "127.0.0.1:8081", "where /health is answered")
	flag.StringVar(&q.backups, "backups", "", "directory for backups; \"\": none are made")
	flag.DurationVar(&q.interval, "interval", 30*time.Second, "time between two looks at a node")
	flag.DurationVar(&q.backupEvery, "backup-every", 24*time.Hour, "time between two backups")
	flag.Parse()
	q.log = slog.New(slog.NewTextHandler(os.Stderr, nil))

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := q.run(ctx); err != nil {
		q.log.Error("queen ends", "error", err)
		os.Exit(1)
	}
}

type queen struct {
	db, health, backups   string
	interval, backupEvery time.Duration
	log                   *slog.Logger
	fleet                 *registry.Session
}

// open opens the vault: at the start, and again after a rotation by another process.
func (q *queen) open(ctx context.Context) (*vault.Vault, error) {
	return vault.Open(ctx, vault.Config{
		Path:           q.db,
		CredentialsDir: os.Getenv("CREDENTIALS_DIRECTORY"),
		Via:            "queen", // stands in each audit row
		Logger:         q.log,
	})
}

// run works until ctx ends, which is no error.
func (q *queen) run(ctx context.Context) error {
	fleet, err := registry.NewSession(ctx, q.open)
	switch {
	// The errors that an operator must see and mend; see the package's other sentinels.
	case errors.Is(err, vault.ErrNoUnlockMethod), errors.Is(err, vault.ErrWrongKey):
		return fmt.Errorf("%w: does the unit load the credential rbee-vault?", err)
	case errors.Is(err, vault.ErrUnvouched):
		return fmt.Errorf("%w: run once as this user: rbee-vault status --identity FILE --signer FINGERPRINT", err)
	case err != nil:
		return err
	}
	q.fleet = fleet

	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return fleet.Run(ctx, q.monitor) })
	work.Go(func() error { return fleet.Run(ctx, q.follow) })
	work.Go(func() error { return q.serveHealth(ctx) })
	if q.backups != "" {
		work.Go(func() error { return q.makeBackups(ctx) })
	}
	err = work.Wait()
	if e := fleet.Close(); err == nil || errors.Is(err, context.Canceled) {
		err = e
	}
	return err
}

// monitor logs in to every node again and again, and stores which are online. It asks a
// node that has come online what it has.
func (q *queen) monitor(ctx context.Context, r *registry.Registry) error {
	d := &hive.Dialer{Registry: r}
	var asking errgroup.Group
	defer asking.Wait()
	asking.SetLimit(16)
	return d.Monitor(ctx, hive.MonitorOptions{
		Interval: q.interval,
		Logger:   q.log,
		Changed: func(t hive.Transition) {
			q.log.Info("node", "name", t.Node, "was", t.Before, "is", t.After, "cause", t.Result.Err)
			if t.After == registry.StatusOnline {
				asking.Go(func() error { return q.discover(ctx, d, t.Node) })
			}
		},
	})
}

// discover asks a node what it has, and stores its backends and devices.
func (q *queen) discover(ctx context.Context, d *hive.Dialer, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := d.Dial(ctx, name)
	if err == nil {
		defer conn.Close()
		var machine hive.Machine
		if machine, err = conn.Discover(ctx); err == nil {
			backends, devices := machine.Backends()
			err = d.Registry.UpdateCapabilities(ctx, name, backends, devices)
		}
	}
	if err != nil {
		q.log.Warn("discover", "node", name, "error", err) // the next time it comes online
	}
	return nil
}

// follow tells what others do with the registry: the command, or a keeper.
func (q *queen) follow(ctx context.Context, r *registry.Registry) error {
	for change, err := range r.Watch(ctx) {
		switch {
		case err != nil:
			return err
		case change.Before == nil:
			q.log.Info("registered", "node", change.Name)
		case change.After == nil:
			q.log.Info("removed", "node", change.Name) // its key went with it
		}
	}
	return nil
}

// makeBackups makes a backup now, and then every day. It is encrypted to the recipients of the
// vault, and signed by it.
func (q *queen) makeBackups(ctx context.Context) error {
	tick := time.NewTicker(q.backupEvery)
	defer tick.Stop()
	for {
		err := q.fleet.Use(ctx, func(r *registry.Registry) error {
			made, err := backup.Create(ctx, r.Vault(), backup.CreateOptions{Dir: q.backups, Program: "queen"})
			if err == nil {
				q.log.Info("backup", "sequence", made.Sequence, "at", made.Copies[0])
			}
			return err
		})
		if err != nil && ctx.Err() == nil {
			q.log.Error("backup", "error", err) // a full disk is no reason to stop watching
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// serveHealth answers how many nodes there are, by status.
func (q *queen) serveHealth(ctx context.Context) error {
	l, err := net.Listen("tcp", q.health)
	if err != nil {
		return err
	}
	q.log.Info("ready", "health", "http://"+l.Addr().String()+"/health")
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		nodes := map[registry.Status]int{}
		err := q.fleet.Use(req.Context(), func(r *registry.Registry) error {
			all, err := r.Snapshot(req.Context()) // from memory, while nothing changes
			for n := range all.All() {
				nodes[n.Status]++
			}
			return err
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"status": "ok", "nodes": nodes})
	})}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return ctx.Err()
}
