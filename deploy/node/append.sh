# Appends standard input to the upload of version $1 with the checksum $2. $3 is the offset of the
# input. When all $4 bytes are there, the binary is put in place.
lock
part=$lib/.$2.part
[ -f "$part" ] || : >"$part"
[ "$(stat -c %s "$part")" = "$3" ] || again "the upload has another length than expected"
# If the connection ends, the bytes received so far stay for the next try. If the disk is full, the
# upload is deleted.
cat >>"$part" || {
  rm -f "$part"
  fail "can't write to $lib: nothing was changed"
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
  fail "the binary does not run on this machine"
}
