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

# point makes the link to a version, as "../lib/kaiku/VERSION/kaiku", in one step.
point() {
  mkdir -p "${link%/*}"
  rm -f "$link.new"
  ln -s "$1" "$link.new"
  mv -fT "$link.new" "$link"
}

# place puts a file where it belongs, in one step.
place() {
  mkdir -p "$(dirname "$2")"
  rm -f "$2.kaiku-new"
  cp -a "$1" "$2.kaiku-new"
  sync "$2.kaiku-new" 2>/dev/null || :
  mv -fT "$2.kaiku-new" "$2"
}
