# Forgets what was laid aside.
lock
rm -rf "$next" "$next".*
