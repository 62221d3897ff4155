package rules

// ErrorPages are pages that browsers get in place of the bodies of errors.
type ErrorPages struct {
	Pages  map[int][]byte // HTML by status
	Origin bool           // for errors of the origin too
}

// ErrorPage returns the page for an error, or nil. own means that the error is the edge's own. If
// several rules have one, that of the last rule counts.
func (o *Outcome) ErrorPage(status int, own bool) []byte {
	for i := len(o.Pages) - 1; i >= 0; i-- {
		if page := o.Pages[i].Pages[status]; page != nil && (own || o.Pages[i].Origin) {
			return page
		}
	}
	return nil
}

// addPages adds the pages of the matching rules, up to the first that ends the request. They are
// for failed checks too.
func (o *Outcome) addPages(found []matching) {
	for _, m := range found {
		if m.rule.ends() {
			return
		}
		if m.rule.Pages != nil {
			o.Pages = append(o.Pages, m.rule.Pages)
		}
	}
}
