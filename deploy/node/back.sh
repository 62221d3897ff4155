# Restores the version and files from before the deploy. $1 is the action on the process: restart
# or reload.
lock
if [ ! -d "$before" ]; then
  exit
fi
had=$(cat "$before/.current")
sockets=
if grep -qxF /etc/systemd/system/kaiku.socket "$before/.paths"; then
  sockets=yes
  systemctl stop kaiku.service kaiku.socket || :
fi
if [ -z "$had" ]; then # this was the first deploy
  systemctl disable -q --now kaiku.service || :
fi
while IFS= read -r path; do
  if [ -f "$before$path" ]; then
    place "$before$path" "$root$path"
  else
    rm -f "$root$path"
  fi
done <"$before/.paths"
if [ -f "$before/.resolv" ]; then
  relink "$(cat "$before/.resolv")" "$resolv"
fi
if grep -qxF "$stub" "$before/.paths"; then
  restub
fi
if [ -n "$had" ]; then
  point "$had"
else
  rm -f "$link"
fi
systemctl daemon-reload
if [ -n "$had" ]; then
  if [ -f "$root/etc/systemd/system/kaiku.socket" ]; then
    systemctl start kaiku.socket
  fi
  if [ "$1" != reload ] || ! systemctl reload kaiku.service; then
    systemctl restart kaiku.service
  fi
fi
rm -rf "$before" "$next" "$next".*
