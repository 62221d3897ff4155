package rules

import "net/http"

// SecurityHeaders returns a preset of response fields that make browsers more careful: basic or
// strict. It reports whether there is one of that name. A field that the response has already
// stays.
func SecurityHeaders(preset string) (*Fields, bool) {
	basic := []Value{
		{"X-Content-Type-Options", "nosniff"},
		{"Referrer-Policy", "strict-origin-when-cross-origin"},
		{"X-Frame-Options", "SAMEORIGIN"},
	}
	strict := []Value{
		{"X-Content-Type-Options", "nosniff"},
		{"Referrer-Policy", "no-referrer"},
		{"X-Frame-Options", "DENY"},
		{"Content-Security-Policy", "frame-ancestors 'none'; base-uri 'self'; object-src 'none'"},
		{"Permissions-Policy", "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), " +
			"hid=(), magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()"},
		{"Cross-Origin-Opener-Policy", "same-origin"},
		{"Cross-Origin-Resource-Policy", "same-origin"},
		{"X-Permitted-Cross-Domain-Policies", "none"},
	}
	switch preset {
	case "basic":
		return &Fields{Default: basic}, true
	case "strict":
		return &Fields{Default: strict}, true
	}
	return nil, false
}

// applyPresets notes the presets of the matching rules. Of several, the last one counts. It answers
// preflight requests.
func (o *Outcome) applyPresets(found []matching, r *Request) {
	var cors, security *Rule
	for _, m := range found {
		if m.rule.CORS != nil {
			cors = m.rule
		}
		if m.rule.Security != nil {
			security = m.rule
		}
		if m.rule.CORS != nil || m.rule.Security != nil {
			o.Shape |= m.shape
		}
	}
	if security != nil {
		o.Header = append(o.Header, security.Security)
	}
	if cors == nil {
		return
	}
	if response := cors.CORS.preflight(r); response != nil {
		o.refuse(cors, response)
		return
	}
	o.cors = cors.CORS
	o.Header = append(o.Header, &cors.CORS.fixed)
}

// AllowOrigin changes the header of a response so that the page that made the request may read it,
// if a rule allows that.
func (o *Outcome) AllowOrigin(h, request http.Header) {
	if o.cors != nil && len(request["Origin"]) == 1 {
		o.cors.allow(h, request["Origin"][0])
	}
}
