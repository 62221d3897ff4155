# Deletes what deploys installed on the node and what its process wrote. The arguments are the
# folders that the process wrote to. The script can be run again, because it deletes .deployed
# last.
lock
systemctl disable -q --now kaiku.socket kaiku.service 2>/dev/null || :
if systemctl is-active -q kaiku.service; then
  fail "kaiku.service could not be stopped"
fi
if [ -f "$etc/.deployed" ] && grep -qxF "$stub" "$etc/.deployed"; then
  rm -f "$root$stub"
  restub
  if [ "$(readlink "$resolv" || :)" = ../run/systemd/resolve/resolv.conf ] && [ -f "$root/run/systemd/resolve/stub-resolv.conf" ]; then
    relink ../run/systemd/resolve/stub-resolv.conf "$resolv" # as activate.sh found it
  fi
fi
uid=$(id -u kaiku 2>/dev/null) || uid=
for dir in "$@"; do # in other folders, only the files of the user kaiku
  case $dir in
  /var/lib/kaiku | /var/log/kaiku)
    if [ -d "$root$dir" ]; then
      find "$root$dir" -xdev -mindepth 1 -depth -delete
      rmdir "$root$dir" 2>/dev/null || : # it fails if the folder is a mount point
    fi
    ;;
  *)
    if [ -n "$uid" ] && [ -d "$root$dir" ]; then
      find "$root$dir" -xdev -depth -user "$uid" \( ! -type d -o -empty \) -delete 2>/dev/null || :
    fi
    ;;
  esac
done
rm -rf "$before" "$next" "$next".*
if [ -f "$etc/.deployed" ]; then
  while IFS= read -r path; do
    if [ "$path" != /etc/kaiku/.deployed ]; then
      rm -f "$root$path"
    fi
  done <"$etc/.deployed"
  find "$etc" -mindepth 1 -depth -type d -empty -delete
fi
case $(readlink "$link" || :) in
../lib/kaiku/*) rm -f "$link" ;;
esac
systemctl daemon-reload
if [ ! -e "$root/usr/bin/kaiku" ] && [ -n "$uid" ]; then # a package needs the user, too
  userdel kaiku 2>/dev/null || :
fi
rm -f "$etc/.deployed"
rmdir "$etc" 2>/dev/null || :
rm -rf "$lib"
