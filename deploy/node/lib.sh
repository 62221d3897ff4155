# This file is prepended to every script. Tests set KAIKU_ROOT to a folder to use in place of /.
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

# again exits with EX_TEMPFAIL, which tells the caller to run the script again.
again() {
  echo "$*" >&2
  exit 75
}

# lock waits for other scripts. A script whose connection was lost may still be running.
lock() {
  mkdir -p "$lib"
  exec 9>"$lib/.lock"
  flock -w 60 9 || fail "another deploy is changing this node"
}

# sum prints the SHA-256 of a file.
sum() {
  s=$(sha256sum <"$1")
  echo "${s%% *}"
}

# relink atomically makes $2 a symbolic link to $1.
relink() {
  mkdir -p "${2%/*}"
  rm -f "$2.new"
  ln -s "$1" "$2.new"
  mv -fT "$2.new" "$2"
}

# point links to a version; $1 is "../lib/kaiku/VERSION/kaiku".
point() {
  relink "$1" "$link"
}

# restub restarts systemd-resolved, if it runs, so that it reads its listener setting.
restub() {
  if systemctl is-active -q systemd-resolved.service; then
    systemctl restart systemd-resolved.service
  fi
}

# place atomically replaces the file $2 by a copy of $1.
place() {
  mkdir -p "$(dirname "$2")"
  rm -f "$2.kaiku-new"
  cp -a "$1" "$2.kaiku-new"
  sync "$2.kaiku-new" 2>/dev/null || :
  mv -fT "$2.kaiku-new" "$2"
}
