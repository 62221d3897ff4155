package httpcache

import "github.com/dunglas/httpsfv"

// maxGroups bounds the groups of one response; RFC 9875, 2 asks for 32 at least.
const maxGroups = 128

// Groups parses Cache-Groups or Cache-Group-Invalidation (RFC 9875): a List of Strings. A field
// that does not parse, or has another type in it, names none.
func Groups(lines []string) []string {
	list, err := httpsfv.UnmarshalList(lines)
	if err != nil || len(list) > maxGroups {
		return nil
	}
	var out []string
	for _, m := range list {
		item, _ := m.(httpsfv.Item)
		group, ok := item.Value.(string)
		if !ok {
			return nil
		}
		out = append(out, group)
	}
	return out
}
