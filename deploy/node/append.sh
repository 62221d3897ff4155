# Takes bytes of the version $1 with the checksum $2 from the offset $3 on, and puts it in its place when all $4 are there.
lock
part=$lib/.$2.part
[ -f "$part" ] || : >"$part"
[ "$(stat -c %s "$part")" = "$3" ] || again "the upload is not where it was left"
# What was taken stays for the next try if the connection ends; a disk that is full keeps nothing.
cat >>"$part" || {
  rm -f "$part"
  fail "can't write to $lib: the node is as it was"
}
if [ "$(stat -c %s "$part")" -lt "$4" ]; then
  again "the upload ended early"
fi
if [ "$(sum "$part")" != "$2" ]; then
  rm -f "$part"
  fail "the checksum of the uploaded binary is wrong: nothing was changed; run the deploy again"
fi
chmod 755 "$part"
sync "$part" 2>/dev/null || :
mkdir -p "$lib/$1"
mv -fT "$part" "$lib/$1/kaiku"
"$lib/$1/kaiku" version >/dev/null || {
  rm -rf "${lib:?}/$1"
  fail "the binary does not run here"
}
