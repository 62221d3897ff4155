package edge

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

func newRefusals() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaiku_edge_rule_refusals_total",
		Help: "Requests that the checks of rules refused, by site and reason."}, []string{"site", "reason"})
}

// serveByRules answers a client's request as the rules of its site say.
func (s *Server) serveByRules(x *front.Exchange, of *site.Site) {
	r := x.Request
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	o := of.Rules.Evaluate(&rules.Request{Method: r.Method, Secure: x.Secure(), Host: x.Target.Host,
		Path: x.Target.Path, Query: x.Target.Query, Protocol: r.ProtoMajor, Header: r.Header, Client: from.Addr(),
		Now: time.Now(), Table: &s.limits, Country: of.Country})
	if len(o.Pages) > 0 {
		x.SetErrorPages(o.ErrorPage)
	}
	if o.Response != nil {
		s.sendRuleResponse(x, of, o)
		return
	}
	x.Target.Path, x.Target.Query = o.Path, o.Query
	if o.Known {
		delete(r.Header, "Authorization") // it was for the edge, and would keep the response out of the cache
	}
	for _, name := range o.Cookies {
		rules.RemoveCookie(r.Header, name)
	}
	for _, change := range o.Request {
		change.Apply(r.Header)
	}
	if o.CountsMisses() {
		x.BeforeFetch = func() bool { return s.countMiss(x, of, o) }
	}
	under := of.Under(o)
	changeFields(x, under.Fields, o)
	s.cache.Serve(x, under)
}

// changeFields has the rules change the fields of the response.
func changeFields(x *front.Exchange, changes []*rules.Fields, o *rules.Outcome) {
	for _, change := range changes {
		x.ChangeHeader(func(h http.Header) {
			if len(change.Default) > 0 && x.Status() == http.StatusNotModified && x.Cache().Forward != "" {
				// The origin's 304 may lack what the client has stored, and defaults would replace
				// that.
				without := *change
				without.Default = nil
				without.Apply(h)
				return
			}
			change.Apply(h)
		})
	}
	x.ChangeHeader(func(h http.Header) { o.AllowOrigin(h, x.Request.Header) })
}

// countMiss counts a request that goes to the origin. It reports false if that exceeds a limit;
// then it has answered the request.
func (s *Server) countMiss(x *front.Exchange, of *site.Site, o *rules.Outcome) bool {
	if o.Miss(&s.limits, time.Now()); o.Response == nil {
		return true
	}
	o.Header = nil // serveByRules makes these changes
	s.sendRuleResponse(x, of, o)
	return false
}

// sendRuleResponse sends what a rule answers in place of the origin.
func (s *Server) sendRuleResponse(x *front.Exchange, of *site.Site, o *rules.Outcome) {
	h := x.Header()
	for name, values := range o.Response.Header {
		h[name] = values
	}
	changeFields(x, o.Header, o)
	detail := "rule " + o.By
	if reason := o.Response.Reason; reason != "" {
		detail += ": " + reason
		s.refusals.WithLabelValues(of.Name, reason).Inc()
	}
	h["Cache-Status"] = []string{string(httpcache.Status{Detail: detail}.Append(nil, s.Name))}
	if h["Cache-Control"] == nil {
		h.Set("Cache-Control", "no-store")
	}
	body := o.Response.Body
	if len(body) > 0 {
		x.SetErrorPages(nil) // the rule has a body of its own
	}
	if len(body) == 0 && o.Response.Status >= 400 {
		body = x.ErrorBody(o.Response.Status, o.Response.Detail)
		// The rule may let caches keep it. Its own values are not changed.
		h["Vary"] = append(slices.Clip(h["Vary"]), "Accept")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(o.Response.Status)
	if x.Request.Method != http.MethodHead {
		_, _ = x.Write(body)
	}
}
