# What the tests and the demo use of Debian. Installed only where it is missing.
BUILD = gcc libc6-dev
STOCK = age jq openssh-client openssl sqlite3
TEST  = $(BUILD) $(STOCK) bash-completion bsdextrautils curl dbus fish git gnome-keyring iproute2 keepassxc less librsvg2-bin libsecret-tools openssh-server poppler-utils procps rsync rustc strace systemd zbar-tools zsh

.PHONY: build build-openssl install dist test-dist demo test bench bench-openssl fuzz

build: ## the command, in ./rbee-vault
	@scripts/install $(BUILD)
	go build -o rbee-vault ./cmd/rbee-vault

# The driver brings its own cryptography; this takes OpenSSL's, of the system.
OPENSSL = CGO_CFLAGS="-g -O2 -include $(CURDIR)/scripts/openssl.h" CGO_LDFLAGS=-lcrypto

build-openssl: ## the same, with OpenSSL's cryptography: faster where much is decrypted
	@scripts/install $(BUILD) libssl-dev
	$(OPENSSL) go build -o rbee-vault ./cmd/rbee-vault

PREFIX = /usr/local

install: build ## the command and the link for scp -S, under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 rbee-vault $(DESTDIR)$(PREFIX)/bin/rbee-vault
	ln -sf rbee-vault $(DESTDIR)$(PREFIX)/bin/rbee-vault-ssh

dist: ## packages, in dist/; for arm64 too where its cross compiler is installed
	@scripts/install $(BUILD) git jq libssl-dev openssh-client
	@scripts/dist

test-dist: dist ## the Debian package in a clean root: installed, used, removed; two builds give the same bytes
	@scripts/install debootstrap lintian
	@scripts/test-dist --twice

demo: ## the first minute of README.md, in a throwaway directory
	@scripts/install $(BUILD) $(STOCK)
	@scripts/demo

# Many tests wait for the disk. The package that takes longest comes first.
test: ## everything, with the real parts
	@scripts/install $(TEST)
	go test -race -shuffle=on -parallel 8 -timeout 60m ./vault ./...

bench: ## ratios to a plaintext registry, and to OpenSSH, in one run
	@scripts/install $(TEST)
	go test -run '^$$' -bench . ./bench
	go test -run '^$$' -bench 'Sign|SSH' ./agent ./cmd/rbee-vault # beside OpenSSH

bench-openssl: ## the same, with OpenSSL's cryptography
	@scripts/install $(TEST) libssl-dev
	$(OPENSSL) go test -run '^$$' -bench . ./bench

fuzz: ## each fuzz target for a while
	@scripts/fuzz 30s
