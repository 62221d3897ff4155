# Prints the running version and, on a second line, the status that the process reports to systemd.
# Fails if the process does not run.
state=$(systemctl is-active kaiku.service || :)
[ "$state" = active ] || fail "kaiku.service is $state"
pid=$(systemctl show -p MainPID --value kaiku.service)
exe=$(readlink "/proc/$pid/exe") || fail "kaiku.service has no process"
exe=${exe%/kaiku}
echo "${exe##*/}"
systemctl show -p StatusText --value kaiku.service
