# Puts the staged files in place and keeps the previous ones.
# $1 is the version. $2 is the action on the process: restart, reload or none. $3 is "sockets" if
# the listeners change.
lock
[ -f "$next/.files" ] || fail "no files are staged"
# After an interrupted deploy, the files from before that deploy are kept, because they worked.
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
# The process may not create the folders that it writes to, and systemd skips missing ones.
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
  # A kernel may lack some settings, and a container may not change them. Kaiku works without them,
  # so sysctl's messages are dropped.
  sysctl -q -p "$root/etc/sysctl.d/60-kaiku.conf" >/dev/null 2>&1 || :
fi
if grep -qxF "$stub" "$next/.files" "$next/.removed"; then
  case $(readlink "$resolv" || :) in
  */stub-resolv.conf) # names the listener that is about to stop
    if [ -f "$root/run/systemd/resolve/resolv.conf" ] && ! grep -qxF "$stub" "$next/.removed"; then
      readlink "$resolv" >"$before/.resolv"
      relink ../run/systemd/resolve/resolv.conf "$resolv"
    fi
    ;;
  esac
  restub # frees the port before Kaiku listens on it
fi
systemctl daemon-reload
# log.sh prints only what is logged after this time.
echo "$(date +%s.%N) $(systemctl show -p InvocationID --value kaiku.service 2>/dev/null || :)" >"$before/.started"
sockets=
if [ -f "$root/etc/systemd/system/kaiku.socket" ]; then
  sockets=kaiku.socket
fi
systemctl enable -q $sockets kaiku.service
if [ "$3" = sockets ]; then # listeners can't change while a process has them
  systemctl stop kaiku.service kaiku.socket
fi
if [ -n "$sockets" ]; then
  systemctl start kaiku.socket
fi
case $2 in
restart) systemctl restart kaiku.service ;;
reload) systemctl reload kaiku.service ;;
esac
