# Says which version runs; fails if none does.
state=$(systemctl is-active kaiku.service || :)
[ "$state" = active ] || fail "kaiku.service is $state"
pid=$(systemctl show -p MainPID --value kaiku.service)
exe=$(readlink "/proc/$pid/exe") || fail "kaiku.service has no process"
exe=${exe%/kaiku}
echo "${exe##*/}"
