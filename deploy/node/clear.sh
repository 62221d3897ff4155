# Deletes the staged files.
lock
rm -rf "$next" "$next".*
