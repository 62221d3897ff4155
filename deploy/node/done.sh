# Ends a deploy after the node became healthy. Keeps the running version and the previous one, and
# deletes everything else that the deploy left.
lock
now=$(readlink "$link")
old=
if [ -f "$before/.current" ]; then
  old=$(cat "$before/.current")
fi
if [ -n "$old" ] && [ "$old" != "$now" ]; then
  for d in "$lib"/*/; do
    name=${d%/}
    name=../lib/kaiku/${name##*/}/kaiku
    if [ "$name" != "$now" ] && [ "$name" != "$old" ]; then
      rm -rf "$d"
    fi
  done
fi
rm -f "$lib"/.*.part
rm -rf "$before" "$next" "$next".*
