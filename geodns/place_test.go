package geodns

import (
	"math"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b Place
		km   float64 // as published, on a sphere
	}{
		{helsinki, helsinki, 0},
		{helsinki, newYork, 6620},
		{newYork, tokyo, 10850},
		{Place{0, 0}, Place{0, 180}, math.Pi * earthRadius},
		{Place{90, 0}, Place{-90, 77}, math.Pi * earthRadius},
		{Place{-17, 179.5}, Place{-17, -179.5}, 106}, // across the date line
	} {
		if got := test.a.Distance(test.b); math.Abs(got-test.km) > 10 {
			t.Errorf("%v to %v is %.0f km, want %.0f", test.a, test.b, got, test.km)
		}
		if there, back := test.a.Distance(test.b), test.b.Distance(test.a); there != back {
			t.Errorf("%v to %v is %v there and %v back", test.a, test.b, there, back)
		}
	}
}
