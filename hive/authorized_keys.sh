# Changes the authorized_keys of the user who runs it. What follows this script: what to do,
# an old key, and the line of a new key.
#   install: adds the line, unless the file holds its key; the old key does not matter
#   add: the same, with the options of the old key's line
#   remove: removes the lines of the old key, if the file holds the new one
#   find: looks for the new key only
# It says "rbee-authorized-keys 1" and how that went.
main() {
	LC_ALL=C
	export LC_ALL
	umask 077
	echo "rbee-authorized-keys 1"
	locked=
	unlock() {
		[ -z "$locked" ] && return
		rm -f "$copy" "$lock/owner"
		rmdir "$lock"
	}
	fail() {
		unlock
		echo "failed $1"
		exit 1
	}
	trap 'fail "it was interrupted"' HUP INT TERM
	IFS= read -r what && IFS= read -r OLD && IFS= read -r LINE || fail "no key came over the connection"
	export OLD LINE
	# Takes a line apart as sshd does: options may have blanks, and even keys, in quotes.
	parse='
	function isKey(s) { return s ~ /^(ssh-|ecdsa-|sk-)[^ \t"=,]*[ \t]/ }
	function parse(s,   i, c, quoted, f) {
		options = ""; blob = ""
		sub(/^[ \t]+/, "", s)
		if (s == "" || s ~ /^#/) return
		if (!isKey(s)) {
			for (i = 1; i <= length(s); i++) {
				c = substr(s, i, 1)
				if (c == "\\" && substr(s, i + 1, 1) == "\"") i++
				else if (c == "\"") quoted = !quoted
				else if (!quoted && (c == " " || c == "\t")) break
			}
			options = substr(s, 1, i - 1)
			s = substr(s, i)
			sub(/^[ \t]+/, "", s)
			if (!isKey(s)) return
		}
		split(s, f)
		blob = f[2]
	}
	BEGIN { old = ENVIRON["OLD"]; line = ENVIRON["LINE"]; parse(line); new = blob }
	{ parse($0) }
	'
	holds() { awk "$parse"'blob != "" && blob == '"$1"' { found = 1 } END { exit !found }' "$2"; }
	others() { awk "$parse"'blob == "" || (blob != old && blob != new) { n++ } END { print n + 0 }' "$1"; }
	[ -n "$OLD" ] && [ -n "$LINE" ] || fail "the line holds no key"
	cd || fail "there is no home directory"
	file=.ssh/authorized_keys
	if [ "$what" = install ] && [ ! -d .ssh ]; then
		mkdir .ssh || fail "$HOME/.ssh cannot be made"
	fi
	if [ -L "$file" ]; then # the link stays a link
		file=$(readlink -f "$file") || fail "the link .ssh/authorized_keys leads nowhere"
	fi
	if [ -e "$file" ]; then
		[ -f "$file" ] || fail "$file is not a regular file"
		[ -r "$file" ] || fail "$file cannot be read"
	elif [ "$what" = add ]; then
		fail "there is no $file"
	elif [ "$what" != install ]; then
		echo "absent"
		exit 0
	fi
	if [ "$what" = remove ]; then
		if ! holds old "$file"; then
			echo "absent"
			exit 0
		fi
		# Without this line, nobody might come in any more.
		holds new "$file" || fail "$file does not hold the new key"
	else
		if [ -e "$file" ] && holds new "$file"; then
			echo "present"
			exit 0
		fi
		if [ "$what" = find ]; then
			echo "absent"
			exit 0
		fi
		# Options restrict the old key. Without its line, what to restrict is not known.
		[ "$what" = install ] || holds old "$file" || fail "$file does not hold the old key"
	fi
	if [ -e "$file" ]; then
		[ -O "$file" ] || fail "$file belongs to another user"
		[ -w "$file" ] || fail "$file is read-only"
	fi
	# Two of these at once, of two nodes with one home directory, would lose a line. A
	# directory is a lock on NFS too. One whose owner on this machine is gone, or that is older
	# than a minute, is of a script that was killed: what comes now takes a moment. Each looks at
	# its copy as a whole before it is put in place.
	lock=$file.rbee-vault
	copy=$lock/keys.$$
	machine=$(uname -n)
	left() {
		[ -n "$(find "$lock" -prune -mmin +1 2>/dev/null)" ] && return
		owner=$(cat "$lock/owner" 2>/dev/null) || return 1
		[ "${owner% *}" = "$machine" ] && ! kill -0 "${owner##* }" 2>/dev/null
	}
	missed=0
	waited=0
	until mkdir "$lock" 2>/dev/null; do
		if [ ! -d "$lock" ]; then # it went away just now, or cannot be made
			missed=$((missed + 1))
			[ "$missed" -lt 10 ] || fail "no file can be made beside $file"
			continue
		fi
		waited=$((waited + 1))
		[ "$waited" -lt 150 ] || fail "$file is being changed by somebody else, who does not end: $lock"
		if ! left; then
			sleep 1
		elif mkdir "$lock.left" 2>/dev/null; then # only one clears it, and looks again first
			if left; then
				rm -f "$lock"/keys.* "$lock/owner"
				rmdir "$lock"
			fi
			rmdir "$lock.left"
		elif [ -n "$(find "$lock.left" -prune -mmin +1 2>/dev/null)" ]; then
			rmdir "$lock.left"
		fi
	done
	locked=yes
	echo "$machine $$" >"$lock/owner"
	before=
	kept=0
	if [ -e "$file" ]; then
		kept=$(others "$file")
		cp -p "$file" "$copy" || fail "$file cannot be copied"
		before=$(cksum <"$copy")
	fi
	if [ "$what" = remove ]; then
		awk "$parse"'blob != old { print }' "$file" >"$copy" || fail "the disk is full"
		! holds old "$copy" || fail "$file cannot be copied"
	else
		# Without its final newline the last key would be glued to the new one.
		[ ! -e "$copy" ] || [ -z "$(tail -c 1 "$copy")" ] || echo >>"$copy" || fail "the disk is full"
		if [ "$what" = install ]; then
			printf '%s\n' "$LINE" >>"$copy" || fail "the disk is full"
		else
			awk "$parse"'blob == old && !seen[options]++ { print (options == "" ? "" : options " ") line }' "$file" >>"$copy" || fail "the disk is full"
		fi
	fi
	sync "$copy" 2>/dev/null # else a power cut may leave a file without a key
	now=
	[ -e "$file" ] && now=$(cksum <"$file")
	[ "$now" = "$before" ] || fail "$file was changed by somebody else meanwhile"
	holds new "$copy" && [ "$(others "$copy")" = "$kept" ] || fail "$file cannot be copied"
	mv -f "$copy" "$file" || fail "$file cannot be replaced"
	unlock
	[ "$what" = remove ] && echo "removed" || echo "added"
}
main <<'END-OF-KEY'
