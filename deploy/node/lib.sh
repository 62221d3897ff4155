# Begins every script. KAIKU_ROOT is for tests: a folder that stands for /.
set -eu
export LC_ALL=C
umask 022
root=${KAIKU_ROOT:-}
lib=$root/usr/local/lib/kaiku
link=$root/usr/local/bin/kaiku
etc=$root/etc/kaiku
next=$etc/.next
before=$etc/.before
stub=/etc/systemd/resolved.conf.d/kaiku.conf
resolv=$root/etc/resolv.conf

fail() {
  echo "$*" >&2
  exit 1
}

# again fails with what says that another try may help.
again() {
  echo "$*" >&2
  exit 75
}

# A script that lost its operator may still be running when the next one comes.
lock() {
  mkdir -p "$lib"
  exec 9>"$lib/.lock"
  flock -w 60 9 || fail "another deploy is at this node"
}

# sum prints the SHA-256 of a file.
sum() {
  s=$(sha256sum <"$1")
  echo "${s%% *}"
}

# relink makes $2 a link to $1, in one step.
relink() {
  mkdir -p "${2%/*}"
  rm -f "$2.new"
  ln -s "$1" "$2.new"
  mv -fT "$2.new" "$2"
}

# point makes the link to a version, as "../lib/kaiku/VERSION/kaiku".
point() {
  relink "$1" "$link"
}

# restub has systemd-resolved take a changed setting of its listener, where it runs.
restub() {
  if systemctl is-active -q systemd-resolved.service; then
    systemctl restart systemd-resolved.service
  fi
}

# place puts a file where it belongs, in one step.
place() {
  mkdir -p "$(dirname "$2")"
  rm -f "$2.kaiku-new"
  cp -a "$1" "$2.kaiku-new"
  sync "$2.kaiku-new" 2>/dev/null || :
  mv -fT "$2.kaiku-new" "$2"
}
