# Stages the files of a tar on standard input. The tar has the files under their paths, and these
# lists: .sums in the format of sha256sum, .files, .secrets, .removed and .folders.
# The whole input is read before the lock is taken: a script whose connection was lost may still
# run after its replacement.
new=$etc/.next.$$
mkdir -p "$etc"
mkdir -m 700 "$new"
unpack() {
  tar -xf - --no-same-owner -C "$new" || return 1
  if [ -s "$new/.sums" ]; then
    (cd "$new" && sha256sum --quiet -c .sums >&2) || return 1
  fi
  while IFS= read -r path; do
    chmod 600 "$new$path" && chown kaiku: "$new$path" || return 1
  done <"$new/.secrets"
}
id kaiku >/dev/null 2>&1 || useradd --system --user-group --home-dir /var/lib/kaiku --shell /usr/sbin/nologin kaiku
unpack || {
  rm -rf "$new"
  rmdir "$etc" 2>/dev/null || :
  fail "can't stage the files in $etc: nothing was changed"
}
lock
rm -rf "$next"
mv -T "$new" "$next"
