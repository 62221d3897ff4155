# Prints the state of the node. $1 is a list of versions to look for, the other arguments are
# paths. The last line is "end", so that truncated output is detected.
versions=$1
shift
echo "kernel $(uname -s)"
echo "machine $(uname -m)"
if [ -d "$root/run/systemd/system" ] && command -v systemctl >/dev/null; then
  echo systemd
fi
for tool in sha256sum flock tar useradd; do
  command -v "$tool" >/dev/null || echo "lacks $tool"
done
dir=$lib
while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
df -Pk "$dir" | {
  read -r _
  read -r _ _ _ free _
  echo "free $free"
}
if target=$(readlink "$link"); then
  target=${target%/kaiku}
  echo "current ${target##*/}"
fi
for d in "$lib"/*/; do
  if [ -f "$d/kaiku" ]; then
    d=${d%/}
    echo "version ${d##*/}"
  fi
done
for version in $versions; do
  if [ -f "$lib/$version/kaiku" ]; then
    echo "binary $version $(sum "$lib/$version/kaiku")"
  fi
done
if [ -d "$before" ]; then
  echo unfinished
fi
echo "active $(systemctl is-active kaiku.service 2>/dev/null || :)"
echo "enabled $(systemctl is-enabled kaiku.service 2>/dev/null || :)"
pid=$(systemctl show -p MainPID --value kaiku.service 2>/dev/null || :)
echo "pid ${pid:-0}"
if [ "$(systemctl is-active kaiku.socket 2>/dev/null || :)" = active ]; then
  sed -n 's/^ListenStream=/listens /p' "$root/etc/systemd/system/kaiku.socket" 2>/dev/null || :
fi
if command -v ss >/dev/null; then
  ss -Hlntup 2>/dev/null | sed 's/^/socket /' || :
fi
if [ "${pid:-0}" != 0 ] && exe=$(readlink "/proc/$pid/exe"); then
  exe=${exe%/kaiku}
  echo "running ${exe##*/}"
fi
one() {
  if [ -f "$root$1" ]; then
    echo "file $(stat -c %a "$root$1") $(sum "$root$1") $1"
  fi
}
if [ -f "$etc/.deployed" ]; then
  while IFS= read -r path; do
    echo "deployed $path"
    one "$path"
  done <"$etc/.deployed"
fi
for path in "$@"; do
  one "$path"
done
echo end
