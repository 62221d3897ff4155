# Stages the files of a tar on standard input. The tar has the files under their paths, and these
# lists: .sums in the format of sha256sum, .files, .secrets, .removed and .folders.
# The whole input is read before the lock is taken: a script whose connection was lost may still
# run after its replacement.
aside=$etc/.next.$$
mkdir -p "$etc"
mkdir -m 700 "$aside"
lay() {
  tar -xf - --no-same-owner -C "$aside" || return 1
  if [ -s "$aside/.sums" ]; then
    (cd "$aside" && sha256sum --quiet -c .sums >&2) || return 1
  fi
  while IFS= read -r path; do
    chmod 600 "$aside$path" && chown kaiku: "$aside$path" || return 1
  done <"$aside/.secrets"
}
id kaiku >/dev/null 2>&1 || useradd --system --user-group --home-dir /var/lib/kaiku --shell /usr/sbin/nologin kaiku
lay || {
  rm -rf "$aside"
  rmdir "$etc" 2>/dev/null || :
  fail "can't lay the files aside in $etc: the node is as it was"
}
lock
rm -rf "$next"
mv -T "$aside" "$next"
