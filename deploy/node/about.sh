# Prints the files that deploys installed on the node and the folders that its process wrote to.
# The last line is "end".
unit=$root/etc/systemd/system/kaiku.service
if [ -f "$unit" ]; then
  sed -n 's/^ExecStart=.* --node \([^ ]*\)$/name \1/p' "$unit"
fi
echo "active $(systemctl is-active kaiku.service 2>/dev/null || :)"
for d in "$lib"/*/; do
  if [ -d "$d" ]; then
    echo "program ${d#"$root"}"
  fi
done
if [ -f "$etc/.deployed" ]; then
  while IFS= read -r path; do
    if [ -f "$root$path" ]; then
      echo "file $(stat -c %a "$root$path") $path"
    fi
  done <"$etc/.deployed"
fi
if [ -f "$unit" ]; then
  sed -n 's/^ReadWritePaths="\{0,1\}-\(.*[^"]\)"\{0,1\}$/folder \1/p' "$unit"
fi
for dir in /var/lib/kaiku /var/log/kaiku; do
  if [ -d "$root$dir" ]; then
    echo "folder $dir"
  fi
done
if [ -d "$etc" ]; then
  find "$etc" -type f ! -path "$etc/.*" | while IFS= read -r path; do
    path=${path#"$root"}
    grep -qxF -e "$path" "$etc/.deployed" 2>/dev/null || echo "kept $path"
  done
fi
echo end
