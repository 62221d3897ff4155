package httpcache

// maxGroups bounds the groups of one response; RFC 9875, 2 asks for 32 at least.
const maxGroups = 128

// Groups parses Cache-Groups or Cache-Group-Invalidation (RFC 9875): a List of Strings. A field that does not parse, or has another type in it,
// names none.
func Groups(lines []string) []string {
	list, ok := parseSFList(lines)
	if !ok || len(list) > maxGroups {
		return nil
	}
	var out []string
	for _, item := range list {
		if item.kind != sfString {
			return nil
		}
		out = append(out, item.s)
	}
	return out
}
