package dnssec

// maxName and maxLabel are the limits of RFC 1035 section 2.3.4, in octets of wire format.
const (
	maxName  = 255
	maxLabel = 63
)

// Labels returns how many labels a name has for a signature: without the root, and without the
// asterisk of a wildcard (RFC 4034 section 3.1.3).
func Labels(name string) int {
	n := 0
	if len(name) > 2 && name[0] == 1 && name[1] == '*' {
		name = name[2:]
	}
	for ; name[0] != 0; name = name[1+name[0]:] {
		n++
	}
	return n
}

// Compare orders two names canonically (RFC 4034 section 6.1), as strings.Compare does.
func Compare(a, b string) int {
	var at, bt [maxName/2 + 1]uint8
	i, j := starts(a, &at), starts(b, &bt)
	for i > 0 && j > 0 {
		i, j = i-1, j-1
		if c := compareLabels(label(a, at[i]), label(b, bt[j])); c != 0 {
			return c
		}
	}
	return i - j
}

// starts stores the offsets of the labels of a name in at, and returns the number of labels.
func starts(name string, at *[maxName/2 + 1]uint8) int {
	n := 0
	for off := 0; name[off] != 0; off += 1 + int(name[off]) {
		at[n] = uint8(off)
		n++
	}
	return n
}

func label(name string, at uint8) string { return name[int(at)+1 : int(at)+1+int(name[at])] }

func compareLabels(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Successor appends to b the immediate successor of a name in canonical order: no name is between
// them (RFC 9824 section 3.1; RFC 4471 section 3.1.2 for the longest names). The successor of the
// last name of the zone is zone itself.
func Successor(b []byte, name, zone string) []byte {
	if len(name)+2 <= maxName {
		return append(append(b, 1, 0), name...)
	}
	for len(name) > len(zone) {
		first := name[1 : 1+name[0]]
		if rest := name[1+name[0]:]; len(first) < maxLabel && len(name) < maxName {
			b = append(append(b, byte(len(first)+1)), first...)
			return append(append(b, 0), rest...)
		}
		for len(first) > 0 {
			if last := first[len(first)-1]; last != 0xff {
				b = append(append(b, byte(len(first))), first[:len(first)-1]...)
				if last++; last == 'A' {
					last = 'Z' + 1 // there are no upper case letters in canonical order
				}
				return append(append(b, last), name[1+name[0]:]...)
			}
			first = first[:len(first)-1]
		}
		name = name[1+name[0]:]
	}
	return append(b, zone...)
}
