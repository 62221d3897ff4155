# Puts what was laid aside in its place, keeping what was there. $1 is the version, $2 what the process needs: restart, reload or none; $3 is "sockets" if these change.
lock
[ -f "$next/.files" ] || fail "nothing is laid aside"
# Of a deploy that did not come to its end, what was before that one is kept: it is what is known to have worked.
if [ ! -d "$before" ]; then
  rm -rf "$before.new"
  mkdir -m 700 "$before.new"
  readlink "$link" >"$before.new/.current" || :
  : >"$before.new/.paths"
  mv -T "$before.new" "$before"
fi
keep() {
  if grep -qxF -e "$1" "$before/.paths"; then
    return
  fi
  if [ -f "$root$1" ]; then
    mkdir -p "$before$(dirname "$1")"
    cp -a "$root$1" "$before$1"
  fi
  echo "$1" >>"$before/.paths"
}
while IFS= read -r path; do
  keep "$path"
  place "$next$path" "$root$path"
done <"$next/.files"
while IFS= read -r path; do
  keep "$path"
  rm -f "$root$path"
done <"$next/.removed"
# Folders that the process writes to: it may not make them itself, and systemd leaves out those that are not there.
while IFS= read -r path; do
  mkdir -p "$root$path"
  if [ -z "$(ls -A "$root$path")" ]; then
    chown kaiku: "$root$path"
    chmod 750 "$root$path"
  fi
done <"$next/.folders"
if [ "$(readlink "$link" || :)" != "../lib/kaiku/$1/kaiku" ]; then
  point "../lib/kaiku/$1/kaiku"
fi
if grep -qxF /etc/sysctl.d/60-kaiku.conf "$next/.files"; then
  # A kernel may lack some, and a container may not set them: Kaiku runs without, and the reason of a failure is not to be looked for among complaints of that.
  sysctl -q -p "$root/etc/sysctl.d/60-kaiku.conf" >/dev/null 2>&1 || :
fi
if grep -qxF "$stub" "$next/.files" "$next/.removed"; then
  case $(readlink "$resolv" || :) in
  */stub-resolv.conf) # asks the listener that goes away
    if [ -f "$root/run/systemd/resolve/resolv.conf" ] && ! grep -qxF "$stub" "$next/.removed"; then
      readlink "$resolv" >"$before/.resolv"
      relink ../run/systemd/resolve/resolv.conf "$resolv"
    fi
    ;;
  esac
  restub # before Kaiku listens on the port
fi
systemctl daemon-reload
# For log.sh, which tells what the process says from here on.
echo "$(date +%s.%N) $(systemctl show -p InvocationID --value kaiku.service 2>/dev/null || :)" >"$before/.started"
sockets=
if [ -f "$root/etc/systemd/system/kaiku.socket" ]; then
  sockets=kaiku.socket
fi
systemctl enable -q $sockets kaiku.service
if [ "$3" = sockets ]; then # they can't change below a process that has them
  systemctl stop kaiku.service kaiku.socket
fi
if [ -n "$sockets" ]; then
  systemctl start kaiku.socket
fi
case $2 in
restart) systemctl restart kaiku.service ;;
reload) systemctl reload kaiku.service ;;
esac
