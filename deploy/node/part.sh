# Prints "have" if the version $1 with the checksum $2 is there, else how many of its $3 bytes have
# been uploaded.
lock
if [ -f "$lib/$1/kaiku" ] && [ "$(sum "$lib/$1/kaiku")" = "$2" ]; then
  echo have
  exit
fi
part=$lib/.$2.part
if [ -f "$part" ] && [ "$(stat -c %s "$part")" -le "$3" ]; then
  stat -c %s "$part"
else
  rm -f "$part"
  echo 0
fi
