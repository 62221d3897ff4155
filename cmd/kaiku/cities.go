package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
)

// cityList has cities with data centres in alphabetical order: name, latitude, longitude.
const cityList = `Amsterdam 52.37 4.90
Ashburn 39.04 -77.49
Athens 37.98 23.73
Atlanta 33.75 -84.39
Auckland -36.85 174.76
Bangalore 12.97 77.59
Bangkok 13.76 100.50
Barcelona 41.39 2.17
Beauharnois 45.31 -73.87
Berlin 52.52 13.41
Bogota 4.71 -74.07
Bratislava 48.15 17.11
Brussels 50.85 4.35
Bucharest 44.43 26.10
Budapest 47.50 19.04
Buenos Aires -34.60 -58.38
Cairo 30.04 31.24
Cape Town -33.92 18.42
Chennai 13.08 80.27
Chicago 41.88 -87.63
Copenhagen 55.68 12.57
Dallas 32.78 -96.80
Delhi 28.61 77.21
Denver 39.74 -104.99
Dubai 25.20 55.27
Dublin 53.35 -6.26
Dusseldorf 51.23 6.78
Falkenstein 50.48 12.37
Frankfurt 50.11 8.68
Gravelines 50.99 2.13
Hamburg 53.55 9.99
Helsinki 60.17 24.94
Hillsboro 45.52 -122.99
Hong Kong 22.32 114.17
Honolulu 21.31 -157.86
Hyderabad 17.39 78.49
Istanbul 41.01 28.98
Jakarta -6.21 106.85
Johannesburg -26.20 28.05
Karlsruhe 49.01 8.40
Kyiv 50.45 30.52
Lagos 6.52 3.38
Las Vegas 36.17 -115.14
Lima -12.05 -77.04
Lisbon 38.72 -9.14
London 51.51 -0.13
Los Angeles 34.05 -118.24
Luxembourg 49.61 6.13
Madrid 40.42 -3.70
Manchester 53.48 -2.24
Manila 14.60 120.98
Marseille 43.30 5.37
Melbourne -37.81 144.96
Mexico City 19.43 -99.13
Miami 25.76 -80.19
Milan 45.46 9.19
Montreal 45.50 -73.57
Moscow 55.76 37.62
Mumbai 19.08 72.88
Munich 48.14 11.58
Nairobi -1.29 36.82
New York 40.71 -74.01
Newark 40.74 -74.17
Nuremberg 49.45 11.08
Osaka 34.69 135.50
Oslo 59.91 10.75
Palermo 38.12 13.36
Paris 48.86 2.35
Perth -31.95 115.86
Phoenix 33.45 -112.07
Portland 45.52 -122.68
Prague 50.08 14.44
Queretaro 20.59 -100.39
Reykjavik 64.15 -21.94
Riga 56.95 24.11
Rome 41.90 12.50
Roubaix 50.69 3.17
San Francisco 37.77 -122.42
San Jose 37.34 -121.89
Santiago -33.45 -70.67
Sao Paulo -23.55 -46.63
Seattle 47.61 -122.33
Seoul 37.57 126.98
Singapore 1.35 103.82
Sofia 42.70 23.32
Stockholm 59.33 18.07
Strasbourg 48.57 7.75
Sydney -33.87 151.21
Taipei 25.03 121.57
Tallinn 59.44 24.75
Tel Aviv 32.09 34.78
Tokyo 35.68 139.69
Toronto 43.65 -79.38
Vancouver 49.28 -123.12
Vienna 48.21 16.37
Vilnius 54.69 25.28
Warsaw 52.23 21.01
Washington 38.91 -77.04
Zagreb 45.81 15.98
Zurich 47.38 8.54`

// city returns the location of a city and the name under which the list has it. Upper and lower
// case don't matter. If no city has the name, known is "" and near is the most similar name, or "".
func city(name string) (place config.Location, known, near string) {
	var names []string
	for line := range strings.SplitSeq(cityList, "\n") {
		f := strings.Fields(line)
		name := strings.Join(f[:len(f)-2], " ")
		names = append(names, name)
	}
	near = words.Nearest(name, names)
	i := slices.IndexFunc(names, func(known string) bool { return words.PlainWord(known) == words.PlainWord(name) })
	if i < 0 {
		return place, "", near
	}
	f := strings.Fields(strings.Split(cityList, "\n")[i])
	for j := range place {
		place[j], _ = strconv.ParseFloat(f[len(f)-2+j], 64) // can't fail: a test parses the whole list
	}
	return place, names[i], ""
}
