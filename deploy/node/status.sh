# Says which version runs, and in a second line what the process tells of itself; fails if none runs.
state=$(systemctl is-active kaiku.service || :)
[ "$state" = active ] || fail "kaiku.service is $state"
pid=$(systemctl show -p MainPID --value kaiku.service)
exe=$(readlink "/proc/$pid/exe") || fail "kaiku.service has no process"
exe=${exe%/kaiku}
echo "${exe##*/}"
systemctl show -p StatusText --value kaiku.service
