# Prints a file, for the diff.
cat "$root$1"
