package geodns_test

import (
	"fmt"
	"strings"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// A zone file with a mistake is refused with the line and column of the mistake.
func ExampleParseZone() {
	const file = "@ 3600 IN SOA ns1 hostmaster 1 3600 600 86400 60\n" +
		"@ 3600 IN NS ns1\n" +
		"ns1 3600 IN A 203.0.113.300\n"
	_, errs := geodns.ParseZone(strings.NewReader(file), "example.com.", "example.com.zone")
	for _, err := range errs {
		fmt.Println(err.Error())
	}
	// Output: example.com.zone:3:15: A wants an IPv4 address: "203.0.113.300" does not fit
}
