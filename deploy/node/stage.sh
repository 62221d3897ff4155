# Takes a tar of files on standard input and lays them aside. It has the files by their paths, and these lists: .sums as sha256sum has them, .files, .secrets, .removed.
lock
id kaiku >/dev/null 2>&1 || useradd --system --user-group --home-dir /var/lib/kaiku --shell /usr/sbin/nologin kaiku
mkdir -p "$etc"
rm -rf "$next"
mkdir -m 700 "$next"
lay() {
  tar -xf - --no-same-owner -C "$next" || return 1
  if [ -s "$next/.sums" ]; then
    (cd "$next" && sha256sum --quiet -c .sums >&2) || return 1
  fi
  while IFS= read -r path; do
    chmod 600 "$next$path" && chown kaiku: "$next$path" || return 1
  done <"$next/.secrets"
}
lay || {
  rm -rf "$next"
  fail "can't lay the files aside in $etc: the node is as it was"
}
