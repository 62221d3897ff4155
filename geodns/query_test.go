package geodns

import (
	"slices"
	"testing"

	"github.com/miekg/dns"
)

func TestQueryEDNS(t *testing.T) {
	s := newServer(t, testConfig(t))

	resp := mustAnswer(t, s, question("mail.example.com. A"), nowhere, false)
	if resp.IsEdns0() != nil {
		t.Error("an OPT that was not asked for")
	}

	m := question("MaiL.eXample.com. A")
	m.RecursionDesired, m.CheckingDisabled = true, true
	m.SetEdns0(4096, true)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1, 2, 3}})
	resp = mustAnswer(t, s, m, nowhere, false)
	opt := resp.IsEdns0()
	if opt == nil || opt.UDPSize() != 1232 || !opt.Do() || len(opt.Option) != 0 || opt.Version() != 0 {
		t.Errorf("OPT is %v", opt)
	}
	if !resp.RecursionDesired || !resp.CheckingDisabled || resp.Question[0].Name != "MaiL.eXample.com." {
		t.Errorf("response is %v", resp)
	}
	wantRRs(t, "answer", resp.Answer, "MaiL.eXample.com. 3600 IN A 192.0.2.99")

	m = question("mail.example.com. A")
	m.SetEdns0(4096, false)
	m.IsEdns0().SetVersion(1)
	resp = mustAnswer(t, s, m, nowhere, false)
	if resp.Rcode != dns.RcodeBadVers || resp.IsEdns0() == nil || resp.IsEdns0().Version() != 0 ||
		len(resp.Answer) != 0 {
		t.Errorf("version 1 gets %v", resp)
	}

	m = question("mail.example.com. A")
	m.SetEdns0(4096, false)
	m.SetEdns0(4096, false)
	if resp = mustAnswer(t, s, m, nowhere, false); resp.Rcode != dns.RcodeFormatError {
		t.Errorf("two OPT get %v", resp)
	}

	for _, opcode := range []int{dns.OpcodeIQuery, dns.OpcodeStatus, dns.OpcodeNotify, dns.OpcodeUpdate, 15} {
		m = question("example.com. SOA")
		m.Opcode = opcode
		if resp = mustAnswer(t, s, m, nowhere, false); resp.Rcode != dns.RcodeNotImplemented || resp.Opcode != opcode {
			t.Errorf("opcode %d gets %v", opcode, resp)
		}
	}
}

func TestQueryMalformed(t *testing.T) {
	s := newServer(t, testConfig(t))
	good, err := question("mail.example.com. A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(b []byte) []byte) []byte { return f(slices.Clone(good)) }
	for name, req := range map[string][]byte{
		"no question":        change(func(b []byte) []byte { b[5] = 0; return b[:12] }),
		"two questions":      change(func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }),
		"cut in the name":    good[:20],
		"cut in the type":    good[:len(good)-3],
		"pointer":            change(func(b []byte) []byte { b[12] = 0xc0; return b }),
		"reserved label":     change(func(b []byte) []byte { b[12] = 0x40; return b }),
		"garbage at the end": append(slices.Clone(good), 0),
		"missing record":     change(func(b []byte) []byte { b[11] = 1; return b }),
		"cut record": change(func(b []byte) []byte {
			b[11] = 1
			return append(b, 0, 0, 41, 0, 0, 0, 0, 0, 0, 0,
				4, 1)
		}),
		"OPT with a name": change(func(b []byte) []byte {
			b[11] = 1
			return append(b, 1, 'x', 0, 0, 41, 16, 0, 0, 0, 0,
				0, 0, 0)
		}),
		"OPT as an answer": change(func(b []byte) []byte {
			b[7] = 1
			return append(b, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0,
				0)
		}),
		"cut option": change(func(b []byte) []byte {
			b[11] = 1
			return append(b, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 3, 0,
				9, 0)
		}),
		"long option": change(func(b []byte) []byte {
			b[11] = 1
			return append(b, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 4, 0,
				9, 0, 1)
		}),
		"bad subnet": change(func(b []byte) []byte {
			b[11] = 1
			return append(b, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 8, 0, 8, 0, 4, 0, 1, 24, 0)
		}),
	} {
		resp := mustAnswerRaw(t, s, req, nowhere, false)
		if resp.Rcode != dns.RcodeFormatError || len(resp.Answer)+len(resp.Ns) != 0 || resp.Id != 4711 {
			t.Errorf("%s gets %v", name, resp)
		}
	}
	for name, req := range map[string][]byte{
		"nothing": nil, "cut header": good[:11], "response": change(func(b []byte) []byte { b[2] |= 0x80; return b }),
	} {
		if out := s.answer(req, nowhere, false, nil); out != nil {
			t.Errorf("%s gets %x", name, out)
		}
	}
}
