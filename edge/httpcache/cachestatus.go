package httpcache

import (
	"strconv"
	"time"
)

// Status is this cache's member of the Cache-Status header (RFC 9211).
type Status struct {
	Hit       bool
	Forward   string // fwd: why the request was forwarded; "" if Hit
	FwdStatus int    // status of the next hop's response; 0 if there was none
	Stored    bool   // the response was stored
	Collapsed bool   // the request waited for the response to another one
	TTL       time.Duration
	HasTTL    bool
	Key       Key
	Detail    string // a token or any text
}

// Append appends the member to b. name is the name of the cache.
func (s Status) Append(b []byte, name string) []byte {
	b = append(b, name...)
	if s.Hit {
		b = append(b, "; hit"...)
	}
	if s.Forward != "" {
		b = append(b, "; fwd="...)
		b = append(b, s.Forward...)
	}
	if s.FwdStatus != 0 {
		b = append(b, "; fwd-status="...)
		b = strconv.AppendInt(b, int64(s.FwdStatus), 10)
	}
	if s.HasTTL {
		b = append(b, "; ttl="...)
		b = strconv.AppendInt(b, floorSeconds(s.TTL), 10)
	}
	if s.Stored {
		b = append(b, "; stored"...)
	}
	if s.Collapsed {
		b = append(b, "; collapsed"...)
	}
	if s.Key != "" {
		b = append(b, "; key="...)
		b = appendSFString(b, string(s.Key))
	}
	if s.Detail != "" {
		b = append(b, "; detail="...)
		// RFC 9651, section 3.3.4.
		if c := s.Detail[0]; IsToken(s.Detail) && (c == '*' || 'a' <= c|0x20 && c|0x20 <= 'z') {
			b = append(b, s.Detail...)
		} else {
			b = appendSFString(b, s.Detail)
		}
	}
	return b
}

// floorSeconds rounds down, so that half a second of staleness is -1 and not 0.
func floorSeconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		n--
	}
	return n
}

// appendSFString appends a String (RFC 9651, section 3.3.3). Bytes that a String can't hold become
// "?".
func appendSFString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c > 0x7e:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
