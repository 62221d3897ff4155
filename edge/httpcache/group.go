package httpcache

import "github.com/dunglas/httpsfv"

// maxGroups is the maximum number of groups of a response. RFC 9875, section 2 demands at least 32.
const maxGroups = 128

// Groups parses Cache-Groups or Cache-Group-Invalidation (RFC 9875), which is a List of Strings. It
// returns nil if the field does not parse or has a member of another type.
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
