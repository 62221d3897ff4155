package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// SiteAnswer is the response to a client's request for a site, through the public listeners of a
// node's edge.
type SiteAnswer struct {
	Node   string `json:"node"`
	Site   string `json:"site"`
	URL    string `json:"url"`
	Status int    `json:"status,omitempty"` // 0 if there was no response
	Cache  string `json:"cache,omitempty"`  // hit, miss, stale or pass
	Error  string `json:"error,omitempty"`  // what is wrong and how to fix it; "" if the site works
	Note   string `json:"note,omitempty"`   // additional information
}

// Well reports whether the edge responds and reaches the site's origin.
func (a SiteAnswer) Well() bool { return a.Error == "" }

// String returns a description on one line.
func (a SiteAnswer) String() string {
	status := "nothing"
	if a.Status != 0 {
		status = fmt.Sprint(a.Status)
	}
	text := fmt.Sprintf("site %s: GET %s gets %s", a.Site, a.URL, status)
	if a.Error != "" {
		text += ": " + a.Error
	}
	return text
}

// siteTries is how often a site is checked before it counts as failed. The first request after a
// start may fail.
const siteTries = 3

// checkSites checks the sites through a node, at most siteTries times. It tries again as long as a
// site fails for which matters returns true. all has the results of the last try. failed has those
// that failed and matter.
func (d *Deploy) checkSites(ctx context.Context, p *NodePlan, matters func(SiteAnswer) bool) (all, failed []SiteAnswer,
	err error) {
	c, err := d.conn(ctx, p.node)
	if err != nil {
		return nil, nil, err
	}
	w := d.startProgress(p.Node, "asking for its sites")
	defer w.stop()
	for try := 1; ; try++ {
		all, failed = d.Fleet.Sites(ctx, p.Node, c.DialContext), nil
		for _, a := range all {
			if !a.Well() && matters(a) {
				failed = append(failed, a)
				w.update("asking for its sites: %v", a)
			}
		}
		if len(failed) == 0 || try == siteTries {
			return all, failed, nil
		}
		select {
		case <-ctx.Done():
			return all, failed, nil
		case <-time.After(2 * cmp.Or(d.Every, time.Second)):
		}
	}
}

// recordSites records the state of the sites at an edge before it is changed.
func (d *Deploy) recordSites(ctx context.Context, p *NodePlan) {
	p.sites = nil
	if !p.node.Edge || !p.state.active || p.Process == "" {
		return
	}
	all, _, err := d.checkSites(ctx, p, func(SiteAnswer) bool { return false })
	if err != nil {
		return // changing the node will report the failed connection
	}
	p.sites = map[string]SiteAnswer{}
	for _, a := range all {
		p.sites[a.Site] = a
	}
}

// wasWell reports whether a site worked through this node before the change.
func (p *NodePlan) wasWell(a SiteAnswer) bool {
	was, known := p.sites[a.Site]
	return known && was.Well()
}

// sitesError means that sites which worked before a change don't work after it.
type sitesError struct{ failed []SiteAnswer }

// Error lists the sites.
func (e *sitesError) Error() string {
	var out []string
	for _, a := range e.failed {
		out = append(out, a.String())
	}
	return strings.Join(out, "\n") + "\nbefore this deploy it was well"
}

// checkNotWorse returns an error if a site that worked before the change fails now.
func (d *Deploy) checkNotWorse(ctx context.Context, p *NodePlan) error {
	if p.sites == nil {
		return nil
	}
	_, failed, err := d.checkSites(ctx, p, p.wasWell)
	if err == nil && len(failed) > 0 {
		err = &sitesError{failed}
	}
	return err
}

// attributeFailure checks whether the sites also fail with the restored configuration, and adds
// that to the error.
func (d *Deploy) attributeFailure(ctx context.Context, p *NodePlan, why error) error {
	var sites *sitesError
	if !errors.As(why, &sites) {
		return why
	}
	if _, failed, err := d.checkSites(ctx, p, p.wasWell); err != nil || len(failed) == 0 {
		return why
	}
	return fmt.Errorf("%w\nthe site fails with the node's previous version too, so this deploy is not the cause: deploy again, even if the site still fails", why)
}

// finalCheck checks all sites through each edge of the plan and adds the results to the report. It
// returns an error if sites fail that this deploy added or broke. Sites that failed before are only
// reported.
func (d *Deploy) finalCheck(ctx context.Context, p *Plan, report *Report) error {
	answers, errs := make([][]SiteAnswer, len(p.Nodes)), make([]error, len(p.Nodes))
	caused := func(n *NodePlan, a SiteAnswer) bool {
		_, known := n.sites[a.Site]
		return n.Process != "" && (!known || n.wasWell(a))
	}
	forEach(p.Nodes, func(i int, n *NodePlan) {
		if !n.node.Edge {
			return
		}
		all, _, err := d.checkSites(ctx, n, func(a SiteAnswer) bool { return caused(n, a) })
		answers[i], errs[i] = all, err
	})
	var failed []string
	for i, n := range p.Nodes {
		for _, a := range answers[i] {
			if !a.Well() && !caused(n, a) {
				a.Note = strings.TrimPrefix(a.Note+"; as before this deploy", "; ")
			}
			if !a.Well() && caused(n, a) {
				failed = append(failed, a.Site+" at "+a.Node)
			}
			report.Sites = append(report.Sites, a)
		}
	}
	if len(failed) > 0 {
		errs = append(errs, fmt.Errorf("all nodes run the new version, but these sites fail: %s; the report has the reasons", strings.Join(failed, ", ")))
	}
	return errors.Join(errs...)
}
