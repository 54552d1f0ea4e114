# Replaces a key in the authorized_keys of the user who runs it, in two runs: "add" adds a
# line with the options of the old key's line, "remove" removes the old key's lines. "find"
# looks for the new key only. What to do, the old key and the new line follow this script.
# It says "rbee-replace-key 1" and how that went.
main() {
	LC_ALL=C
	export LC_ALL
	umask 077
	echo "rbee-replace-key 1"
	fail() {
		[ -n "${copy-}" ] && rm -f "$copy"
		echo "failed $1"
		exit 1
	}
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
	holds() { awk "$parse"'blob == '"$1"' { found = 1 } END { exit !found }' "$2"; }
	count() { awk "$parse"'blob != old { n++ } END { print n + 0 }' "$1"; }
	[ -n "$OLD" ] && [ -n "$LINE" ] || fail "the line holds no key"
	cd || fail "there is no home directory"
	file=.ssh/authorized_keys
	if [ -L "$file" ]; then # the link stays a link
		file=$(readlink -f "$file") || fail "the link .ssh/authorized_keys leads nowhere"
	fi
	if [ ! -e "$file" ]; then
		[ "$what" != add ] || fail "there is no $file"
		echo "absent"
		exit 0
	fi
	[ -f "$file" ] || fail "$file is not a regular file"
	[ -r "$file" ] || fail "$file cannot be read"
	if [ "$what" = find ]; then
		holds new "$file" && echo "present" || echo "absent"
		exit 0
	elif [ "$what" = remove ]; then
		if ! holds old "$file"; then
			echo "absent"
			exit 0
		fi
		# Without this line, nobody might come in any more.
		holds new "$file" || fail "$file does not hold the new key"
	else
		if holds new "$file"; then
			echo "present"
			exit 0
		fi
		# Options restrict the old key. Without its line, what to restrict is not known.
		holds old "$file" || fail "$file does not hold the old key"
	fi
	[ -O "$file" ] || fail "$file belongs to another user"
	[ -w "$file" ] || fail "$file is read-only"
	copy=$(mktemp "$file.XXXXXX") || fail "no file can be made beside $file"
	cp -p "$file" "$copy" || fail "$file cannot be copied"
	before=$(cksum <"$copy")
	if [ "$what" = remove ]; then
		awk "$parse"'blob != old { print }' "$file" >"$copy" || fail "the disk is full"
		[ "$(count "$copy")" = "$(count "$file")" ] && ! holds old "$copy" || fail "$file cannot be copied"
	else
		# Without its final newline the last key would be glued to the new one.
		[ -z "$(tail -c 1 "$copy")" ] || echo >>"$copy" || fail "the disk is full"
		awk "$parse"'blob == old && !seen[options]++ { print (options == "" ? "" : options " ") line }' "$file" >>"$copy" || fail "the disk is full"
		holds new "$copy" || fail "$file cannot be copied"
	fi
	[ "$(cksum <"$file")" = "$before" ] || fail "$file was changed by somebody else meanwhile"
	mv -f "$copy" "$file" || fail "$file cannot be replaced"
	[ "$what" = remove ] && echo "removed" || echo "added"
}
main <<'END-OF-KEY'
