package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// SiteAnswer is what a client gets of a site from a node's edge, on its public listeners.
type SiteAnswer struct {
	Node   string `json:"node"`
	Site   string `json:"site"`
	URL    string `json:"url"`
	Status int    `json:"status,omitempty"` // 0 if there was no answer
	Cache  string `json:"cache,omitempty"`  // hit, miss, stale or pass
	Error  string `json:"error,omitempty"`  // why it is not well, and what to do about it; "" if it is well
	Note   string `json:"note,omitempty"`   // what else there is to know
}

// Well reports whether the edge answers, and gets answers of the site's origin.
func (a SiteAnswer) Well() bool { return a.Error == "" }

// String tells of the answer in one line.
func (a SiteAnswer) String() string {
	status := "nothing"
	if a.Status != 0 {
		status = fmt.Sprint(a.Status)
	}
	text := fmt.Sprintf("site %s: GET %s answers %s", a.Site, a.URL, status)
	if a.Error != "" {
		text += ": " + a.Error
	}
	return text
}

// siteTries is how often a site that is not well is asked for: the first request after a start may
// fail.
const siteTries = 3

// askSites asks a node for its sites until none of those that matter fails, a few times.
func (d *Deploy) askSites(ctx context.Context, p *NodePlan, matters func(SiteAnswer) bool) (all, failed []SiteAnswer, err error) {
	c, err := d.conn(ctx, p.node)
	if err != nil {
		return nil, nil, err
	}
	w := d.waits(p.Node, "asking for its sites")
	defer w.end()
	for try := 1; ; try++ {
		all, failed = d.Fleet.Sites(ctx, p.Node, c.DialContext), nil
		for _, a := range all {
			if !a.Well() && matters(a) {
				failed = append(failed, a)
				w.now("asking for its sites: %v", a)
			}
		}
		if len(failed) == 0 || try == siteTries {
			return all, failed, nil
		}
		select {
		case <-ctx.Done():
			return all, failed, nil
		case <-time.After(2 * first(d.Every, time.Second)):
		}
	}
}

// before notes how the sites are at an edge that is going to be changed.
func (d *Deploy) before(ctx context.Context, p *NodePlan) {
	p.sites = nil
	if !p.node.Edge || !p.state.active || p.Process == "" {
		return
	}
	all, _, err := d.askSites(ctx, p, func(SiteAnswer) bool { return false })
	if err != nil {
		return // whatever is wrong with the connection, who changes the node will hear of it
	}
	p.sites = map[string]SiteAnswer{}
	for _, a := range all {
		p.sites[a.Site] = a
	}
}

// worse reports whether a site was well at the node before it was changed.
func (p *NodePlan) worse(a SiteAnswer) bool {
	was, known := p.sites[a.Site]
	return known && was.Well()
}

// sitesError is a node whose sites are not well any more after it was changed.
type sitesError struct{ failed []SiteAnswer }

// Error tells of each.
func (e *sitesError) Error() string {
	var out []string
	for _, a := range e.failed {
		out = append(out, a.String())
	}
	return strings.Join(out, "\n") + "\nbefore this deploy it was well"
}

// asBefore makes sure that the sites that were well before a node was changed still are.
func (d *Deploy) asBefore(ctx context.Context, p *NodePlan) error {
	if p.sites == nil {
		return nil
	}
	_, failed, err := d.askSites(ctx, p, p.worse)
	if err == nil && len(failed) > 0 {
		err = &sitesError{failed}
	}
	return err
}

// blame finds out whether sites fail with what a node had before, too.
func (d *Deploy) blame(ctx context.Context, p *NodePlan, why error) error {
	var sites *sitesError
	if !errors.As(why, &sites) {
		return why
	}
	if _, failed, err := d.askSites(ctx, p, p.worse); err != nil || len(failed) == 0 {
		return why
	}
	return fmt.Errorf("%w\nthe site is not well with the node's previous version either, so this deploy is not the cause: deploy again, once the site is well or if it stays so", why)
}

// finally asks each edge of the plan for each site, and returns an error if one that the deploy
// brought is not well. What was not well before is no error of the deploy.
func (d *Deploy) finally(ctx context.Context, p *Plan, report *Report) error {
	answers, errs := make([][]SiteAnswer, len(p.Nodes)), make([]error, len(p.Nodes))
	brought := func(n *NodePlan, a SiteAnswer) bool {
		_, known := n.sites[a.Site]
		return n.Process != "" && (!known || n.worse(a))
	}
	each(p.Nodes, func(i int, n *NodePlan) {
		if !n.node.Edge {
			return
		}
		all, _, err := d.askSites(ctx, n, func(a SiteAnswer) bool { return brought(n, a) })
		answers[i], errs[i] = all, err
	})
	var failed []string
	for i, n := range p.Nodes {
		for _, a := range answers[i] {
			if !a.Well() && !brought(n, a) {
				a.Note = strings.TrimPrefix(a.Note+"; as before this deploy", "; ")
			}
			if !a.Well() && brought(n, a) {
				failed = append(failed, a.Site+" at "+a.Node)
			}
			report.Sites = append(report.Sites, a)
		}
	}
	if len(failed) > 0 {
		errs = append(errs, fmt.Errorf("all nodes run the new version, but these sites are not well: %s; the report has the reasons", strings.Join(failed, ", ")))
	}
	return errors.Join(errs...)
}
