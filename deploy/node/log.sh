# Prints the end of the log for a report: lines since activate.sh started the process, but not
# those of the old process.
since= old=
if [ -f "$before/.started" ]; then
  read -r since old <"$before/.started" || :
fi
journalctl -q -u kaiku.service -u kaiku.socket --since "@${since:-0}" -n 400 --no-pager -o export 2>/dev/null | awk -v old="$old" '
  function show() {
    if (text != "" && (id == "" || id != old)) print text
    id = text = ""
  }
  /^$/ { show() }
  /^_?(SYSTEMD_)?INVOCATION_ID=/ { id = substr($0, index($0, "=") + 1) }
  /^MESSAGE=/ { text = substr($0, 9) }
  END { show() }
' | tail -n 8
