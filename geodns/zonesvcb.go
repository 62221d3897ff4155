package geodns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// svcParam is a parameter of an SVCB or HTTPS record.
type svcParam struct {
	key   uint16
	value []byte
}

// Keys of further service parameters, which only zone files have.
const (
	svcMandatory     = 0
	svcNoDefaultALPN = 2
	svcPort          = 3
	svcECH           = 5
	svcDoHPath       = 7
	svcOHTTP         = 8
)

// svcParams splits the data of an SVCB or HTTPS record into the head (priority and target) and the
// parameters, in the order of the data.
func svcParams(data []byte) (head []byte, params []svcParam, err error) {
	if len(data) < 3 {
		return nil, nil, errors.New("data is not valid")
	}
	end, err := skipName(data, 2, false)
	if err != nil {
		return nil, nil, err
	}
	head = data[:end]
	for rest := data[end:]; len(rest) > 0; {
		if len(rest) < 4 || len(rest)-4 < int(binary.BigEndian.Uint16(rest[2:])) {
			return nil, nil, errors.New("data is not valid")
		}
		n := 4 + int(binary.BigEndian.Uint16(rest[2:]))
		params = append(params, svcParam{binary.BigEndian.Uint16(rest), rest[4:n]})
		rest = rest[n:]
	}
	return head, params, nil
}

// checkSVCB returns an error if clients would have to treat the record as malformed (RFC 9460
// sections 2.2, 7 and 8). params are sorted by key.
func checkSVCB(params []svcParam) error {
	has := func(key uint16) bool {
		return slices.ContainsFunc(params, func(p svcParam) bool { return p.key == key })
	}
	for i, p := range params {
		if i > 0 && p.key == params[i-1].key {
			return fmt.Errorf("the parameter %s is there twice (RFC 9460 section 2.1)", svcKey(p.key))
		}
		ok, want := true, ""
		n := len(p.value)
		switch p.key {
		case svcMandatory:
			if err := checkMandatory(p.value, has); err != nil {
				return err
			}
		case svcALPN:
			ok, want = validALPN(p.value), "one protocol or several, such as alpn=h3,h2 (RFC 9460 section 7.1.1)"
		case svcNoDefaultALPN:
			if !has(svcALPN) {
				return errors.New("no-default-alpn wants alpn beside it (RFC 9460 section 7.1.1)")
			}
			ok, want = n == 0, "no value"
		case svcPort:
			ok, want = n == 2, "one number"
		case svcIPv4Hint:
			ok, want = n > 0 && n%4 == 0, "IPv4 addresses"
		case svcECH, svcDoHPath:
			ok, want = n > 0, "a value"
		case svcIPv6Hint:
			ok, want = n > 0 && n%16 == 0, "IPv6 addresses"
		case svcOHTTP:
			ok, want = n == 0, "no value"
		}
		if !ok {
			return fmt.Errorf("the parameter %s wants %s", svcKey(p.key), want)
		}
	}
	return nil
}

func svcKey(key uint16) string { return dns.SVCBKey(key).String() }

// checkMandatory checks the value of the parameter mandatory (RFC 9460 section 8). The listed keys
// must be in order and unique. They must not include mandatory itself. The record must have all of
// them.
func checkMandatory(value []byte, has func(uint16) bool) error {
	if len(value) == 0 || len(value)%2 != 0 {
		return errors.New("the parameter mandatory wants keys, such as mandatory=alpn,port (RFC 9460 section 8)")
	}
	for i := 0; i < len(value); i += 2 {
		key := binary.BigEndian.Uint16(value[i:])
		switch {
		case key == svcMandatory:
			return errors.New("the parameter mandatory lists itself (RFC 9460 section 8)")
		case i > 0 && key <= binary.BigEndian.Uint16(value[i-2:]):
			return fmt.Errorf("the parameter mandatory lists %s twice, or out of order (RFC 9460 section 8)",
				svcKey(key))
		case !has(key):
			return fmt.Errorf("the parameter mandatory lists %s, which the record does not have (RFC 9460 section 8)",
				svcKey(key))
		}
	}
	return nil
}

func validALPN(value []byte) bool {
	for rest := value; len(rest) > 0; {
		n := 1 + int(rest[0])
		if n == 1 || n > len(rest) {
			return false
		}
		rest = rest[n:]
	}
	return len(value) > 0
}

// numbered extracts from an entry the parameters that have a name but are given by number, such as
// key1="\002h2" (RFC 9460 section 2.1), because the library rejects them. rest has the same number
// of lines as the entry.
func numbered(e *entry) (rest string, params []svcParam) {
	var out strings.Builder
	done := 0
	for _, w := range e.words() {
		digits, found := strings.CutPrefix(w.text, "key")
		digits, value, _ := strings.Cut(digits, "=")
		n, err := strconv.ParseUint(digits, 10, 16)
		if !found || err != nil || n > svcOHTTP || strconv.FormatUint(n, 10) != digits || w.at == 0 {
			continue
		}
		out.WriteString(e.text[done:w.at])
		done = w.at + len(w.text)
		params = append(params, svcParam{uint16(n), unescaped(value)})
	}
	return out.String() + e.text[done:], params
}

// svcbData returns the data of an SVCB or HTTPS record with the parameters more added. It returns
// an error if the result is not valid.
func svcbData(data []byte, more []svcParam) ([]byte, error) {
	head, params, err := svcParams(data)
	if err != nil {
		return nil, err
	}
	params = append(params, more...)
	slices.SortStableFunc(params, func(a, b svcParam) int { return int(a.key) - int(b.key) })
	if err := checkSVCB(params); err != nil {
		return nil, err
	}
	out := slices.Clone(head)
	for _, p := range params {
		out = binary.BigEndian.AppendUint16(out, p.key)
		out = binary.BigEndian.AppendUint16(out, uint16(len(p.value)))
		out = append(out, p.value...)
	}
	return out, nil
}
