package geodns

// centroid is where the people of a country are, by its ISO 3166-1 alpha-2 code.
//
// The table is the author's estimate, from general knowledge of where each country's people and networks are, of the centre
// of its population: not the middle of its area. It matters where the two lie far apart: the middle of Russia is in Siberia,
// its users are around Moscow. An error of a few hundred kilometres is small beside the distance between the regions of a
// fleet; who needs better gives an mmdb with cities (Config.GeoIP) or networks (Config.Locate). It holds every code that
// the embedded network table returns, and XK; ZZ (no country) has no place.
//
// A switch and not a map: the compiler makes a search of it, and there is no global to build.
func centroid(country string) (Place, bool) {
	switch country {
	case "AD":
		return Place{42.51, 1.53}, true
	case "AE":
		return Place{25, 55.2}, true
	case "AF":
		return Place{34.4, 68.5}, true
	case "AG":
		return Place{17.12, -61.84}, true
	case "AI":
		return Place{18.21, -63.05}, true
	case "AL":
		return Place{41.2, 19.9}, true
	case "AM":
		return Place{40.2, 44.5}, true
	case "AO":
		return Place{-9.8, 14.2}, true
	case "AQ":
		return Place{-77.85, 166.67}, true
	case "AR":
		return Place{-34, -60.2}, true
	case "AS":
		return Place{-14.28, -170.7}, true
	case "AT":
		return Place{47.9, 15.2}, true
	case "AU":
		return Place{-35.3, 148}, true
	case "AW":
		return Place{12.52, -69.98}, true
	case "AX":
		return Place{60.1, 19.94}, true
	case "AZ":
		return Place{40.4, 48.9}, true
	case "BA":
		return Place{44.2, 17.9}, true
	case "BB":
		return Place{13.11, -59.6}, true
	case "BD":
		return Place{23.8, 90.4}, true
	case "BE":
		return Place{50.85, 4.4}, true
	case "BF":
		return Place{12.3, -1.6}, true
	case "BG":
		return Place{42.7, 24.4}, true
	case "BH":
		return Place{26.2, 50.55}, true
	case "BI":
		return Place{-3.3, 29.8}, true
	case "BJ":
		return Place{6.8, 2.4}, true
	case "BL":
		return Place{17.9, -62.83}, true
	case "BM":
		return Place{32.3, -64.78}, true
	case "BN":
		return Place{4.9, 114.9}, true
	case "BO":
		return Place{-17, -66}, true
	case "BQ":
		return Place{12.18, -68.26}, true
	case "BR":
		return Place{-20.5, -46}, true
	case "BS":
		return Place{25.03, -77.4}, true
	case "BT":
		return Place{27.4, 89.8}, true
	case "BV":
		return Place{-54.42, 3.36}, true
	case "BW":
		return Place{-23.5, 26.3}, true
	case "BY":
		return Place{53.8, 27.8}, true
	case "BZ":
		return Place{17.4, -88.6}, true
	case "CA":
		return Place{46.5, -83.5}, true
	case "CC":
		return Place{-12.17, 96.83}, true
	case "CD":
		return Place{-4.6, 20.5}, true
	case "CF":
		return Place{4.6, 18.6}, true
	case "CG":
		return Place{-4.3, 14.4}, true
	case "CH":
		return Place{47.2, 8}, true
	case "CI":
		return Place{5.8, -4.5}, true
	case "CK":
		return Place{-21.21, -159.78}, true
	case "CL":
		return Place{-33.8, -71}, true
	case "CM":
		return Place{4.3, 10.8}, true
	case "CN":
		return Place{32.5, 114}, true
	case "CO":
		return Place{5.4, -74.8}, true
	case "CR":
		return Place{9.95, -84.1}, true
	case "CU":
		return Place{22.4, -80.3}, true
	case "CV":
		return Place{15, -23.6}, true
	case "CW":
		return Place{12.15, -68.92}, true
	case "CX":
		return Place{-10.45, 105.67}, true
	case "CY":
		return Place{35, 33.2}, true
	case "CZ":
		return Place{49.9, 15.3}, true
	case "DE":
		return Place{51, 9.6}, true
	case "DJ":
		return Place{11.57, 43.1}, true
	case "DK":
		return Place{55.7, 11.2}, true
	case "DM":
		return Place{15.36, -61.37}, true
	case "DO":
		return Place{18.7, -70}, true
	case "DZ":
		return Place{36.3, 3.2}, true
	case "EC":
		return Place{-1.4, -79.2}, true
	case "EE":
		return Place{59.2, 25.4}, true
	case "EG":
		return Place{30, 31.2}, true
	case "EH":
		return Place{26.7, -13}, true
	case "ER":
		return Place{15.3, 38.8}, true
	case "ES":
		return Place{40, -3}, true
	case "ET":
		return Place{9, 38.6}, true
	case "FI":
		return Place{61.2, 24.9}, true
	case "FJ":
		return Place{-18, 178.2}, true
	case "FK":
		return Place{-51.7, -57.85}, true
	case "FM":
		return Place{6.92, 158.16}, true
	case "FO":
		return Place{62.01, -6.77}, true
	case "FR":
		return Place{47.8, 2.5}, true
	case "GA":
		return Place{0.2, 9.7}, true
	case "GB":
		return Place{52.4, -1.4}, true
	case "GD":
		return Place{12.08, -61.72}, true
	case "GE":
		return Place{41.8, 44.2}, true
	case "GF":
		return Place{4.9, -52.4}, true
	case "GG":
		return Place{49.46, -2.56}, true
	case "GH":
		return Place{6.1, -0.8}, true
	case "GI":
		return Place{36.14, -5.35}, true
	case "GL":
		return Place{64.5, -51.5}, true
	case "GM":
		return Place{13.44, -16.6}, true
	case "GN":
		return Place{9.9, -13}, true
	case "GP":
		return Place{16.22, -61.53}, true
	case "GQ":
		return Place{2.8, 9.2}, true
	case "GR":
		return Place{38.4, 23.4}, true
	case "GS":
		return Place{-54.28, -36.51}, true
	case "GT":
		return Place{14.8, -90.8}, true
	case "GU":
		return Place{13.47, 144.79}, true
	case "GW":
		return Place{11.9, -15.6}, true
	case "GY":
		return Place{6.7, -58.1}, true
	case "HK":
		return Place{22.32, 114.17}, true
	case "HM":
		return Place{-53.1, 73.51}, true
	case "HN":
		return Place{14.8, -87.3}, true
	case "HR":
		return Place{45.4, 16}, true
	case "HT":
		return Place{18.7, -72.4}, true
	case "HU":
		return Place{47.3, 19.2}, true
	case "ID":
		return Place{-6.6, 109}, true
	case "IE":
		return Place{53.2, -6.9}, true
	case "IL":
		return Place{32, 34.9}, true
	case "IM":
		return Place{54.17, -4.5}, true
	case "IN":
		return Place{21.5, 78.5}, true
	case "IO":
		return Place{-7.31, 72.42}, true
	case "IQ":
		return Place{33.2, 44.4}, true
	case "IR":
		return Place{34.8, 51.2}, true
	case "IS":
		return Place{64.13, -21.8}, true
	case "IT":
		return Place{43, 11.6}, true
	case "JE":
		return Place{49.21, -2.13}, true
	case "JM":
		return Place{18.03, -76.9}, true
	case "JO":
		return Place{32, 35.95}, true
	case "JP":
		return Place{35.5, 137.8}, true
	case "KE":
		return Place{-1, 36.8}, true
	case "KG":
		return Place{42.2, 74}, true
	case "KH":
		return Place{11.7, 104.9}, true
	case "KI":
		return Place{1.4, 173}, true
	case "KM":
		return Place{-11.8, 43.4}, true
	case "KN":
		return Place{17.31, -62.74}, true
	case "KP":
		return Place{39.2, 126}, true
	case "KR":
		return Place{36.9, 127.3}, true
	case "KW":
		return Place{29.35, 47.98}, true
	case "KY":
		return Place{19.3, -81.35}, true
	case "KZ":
		return Place{47.5, 73}, true
	case "LA":
		return Place{18, 102.9}, true
	case "LB":
		return Place{33.9, 35.6}, true
	case "LC":
		return Place{13.95, -60.98}, true
	case "LI":
		return Place{47.15, 9.53}, true
	case "LK":
		return Place{7, 80.2}, true
	case "LR":
		return Place{6.4, -10.5}, true
	case "LS":
		return Place{-29.4, 27.7}, true
	case "LT":
		return Place{55, 24.3}, true
	case "LU":
		return Place{49.63, 6.12}, true
	case "LV":
		return Place{56.9, 24.4}, true
	case "LY":
		return Place{32.5, 14.5}, true
	case "MA":
		return Place{33.5, -6.9}, true
	case "MC":
		return Place{43.74, 7.42}, true
	case "MD":
		return Place{47.1, 28.8}, true
	case "ME":
		return Place{42.5, 19.2}, true
	case "MF":
		return Place{18.07, -63.06}, true
	case "MG":
		return Place{-18.9, 47.3}, true
	case "MH":
		return Place{7.1, 171.2}, true
	case "MK":
		return Place{41.9, 21.4}, true
	case "ML":
		return Place{12.9, -7}, true
	case "MM":
		return Place{19, 96}, true
	case "MN":
		return Place{47.8, 106.7}, true
	case "MO":
		return Place{22.19, 113.54}, true
	case "MP":
		return Place{15.18, 145.75}, true
	case "MQ":
		return Place{14.62, -61.02}, true
	case "MR":
		return Place{18, -15.5}, true
	case "MS":
		return Place{16.75, -62.2}, true
	case "MT":
		return Place{35.9, 14.45}, true
	case "MU":
		return Place{-20.22, 57.52}, true
	case "MV":
		return Place{4.18, 73.51}, true
	case "MW":
		return Place{-14.5, 34.5}, true
	case "MX":
		return Place{20.2, -100.2}, true
	case "MY":
		return Place{3.6, 102.2}, true
	case "MZ":
		return Place{-18.5, 35.8}, true
	case "NA":
		return Place{-21.8, 16.9}, true
	case "NC":
		return Place{-22.2, 166.4}, true
	case "NE":
		return Place{13.6, 5.5}, true
	case "NF":
		return Place{-29.04, 167.95}, true
	case "NG":
		return Place{8.2, 6.4}, true
	case "NI":
		return Place{12.3, -86.1}, true
	case "NL":
		return Place{52.1, 5.1}, true
	case "NO":
		return Place{60.2, 9.8}, true
	case "NP":
		return Place{27.6, 85.1}, true
	case "NR":
		return Place{-0.53, 166.93}, true
	case "NU":
		return Place{-19.05, -169.92}, true
	case "NZ":
		return Place{-38.6, 175.3}, true
	case "OM":
		return Place{23.4, 58}, true
	case "PA":
		return Place{8.95, -79.7}, true
	case "PE":
		return Place{-11.2, -76.8}, true
	case "PF":
		return Place{-17.6, -149.5}, true
	case "PG":
		return Place{-6.6, 146}, true
	case "PH":
		return Place{13.4, 121.8}, true
	case "PK":
		return Place{31, 71.8}, true
	case "PL":
		return Place{51.7, 19.4}, true
	case "PM":
		return Place{46.78, -56.18}, true
	case "PN":
		return Place{-25.07, -130.1}, true
	case "PR":
		return Place{18.35, -66.3}, true
	case "PS":
		return Place{31.8, 35}, true
	case "PT":
		return Place{39.8, -8.7}, true
	case "PW":
		return Place{7.35, 134.47}, true
	case "PY":
		return Place{-25.3, -57}, true
	case "QA":
		return Place{25.3, 51.5}, true
	case "RE":
		return Place{-21.1, 55.5}, true
	case "RO":
		return Place{45.5, 25.6}, true
	case "RS":
		return Place{44.4, 20.6}, true
	case "RU":
		return Place{55.8, 43}, true
	case "RW":
		return Place{-1.95, 30}, true
	case "SA":
		return Place{24, 44}, true
	case "SB":
		return Place{-9.45, 160}, true
	case "SC":
		return Place{-4.63, 55.46}, true
	case "SD":
		return Place{15, 32.4}, true
	case "SE":
		return Place{58.9, 15.8}, true
	case "SG":
		return Place{1.35, 103.82}, true
	case "SH":
		return Place{-15.94, -5.71}, true
	case "SI":
		return Place{46.15, 14.8}, true
	case "SJ":
		return Place{78.22, 15.64}, true
	case "SK":
		return Place{48.6, 18.8}, true
	case "SL":
		return Place{8.4, -12.8}, true
	case "SM":
		return Place{43.94, 12.46}, true
	case "SN":
		return Place{14.7, -16.8}, true
	case "SO":
		return Place{3.5, 45}, true
	case "SR":
		return Place{5.8, -55.2}, true
	case "SS":
		return Place{6.5, 31}, true
	case "ST":
		return Place{0.3, 6.7}, true
	case "SV":
		return Place{13.7, -89.1}, true
	case "SX":
		return Place{18.04, -63.07}, true
	case "SY":
		return Place{34.6, 36.8}, true
	case "SZ":
		return Place{-26.4, 31.4}, true
	case "TC":
		return Place{21.79, -72.2}, true
	case "TD":
		return Place{11.5, 16.2}, true
	case "TF":
		return Place{-49.35, 70.22}, true
	case "TG":
		return Place{6.9, 1.1}, true
	case "TH":
		return Place{14.5, 100.8}, true
	case "TJ":
		return Place{38.5, 69}, true
	case "TK":
		return Place{-9.17, -171.8}, true
	case "TL":
		return Place{-8.6, 125.8}, true
	case "TM":
		return Place{38.2, 59}, true
	case "TN":
		return Place{36.2, 10.1}, true
	case "TO":
		return Place{-21.14, -175.2}, true
	case "TR":
		return Place{39.6, 31.8}, true
	case "TT":
		return Place{10.5, -61.4}, true
	case "TV":
		return Place{-8.52, 179.2}, true
	case "TW":
		return Place{24.4, 120.9}, true
	case "TZ":
		return Place{-5.8, 36}, true
	case "UA":
		return Place{49.2, 31.2}, true
	case "UG":
		return Place{0.7, 32.2}, true
	case "UM":
		return Place{19.28, 166.65}, true
	case "US":
		return Place{38.5, -87}, true
	case "UY":
		return Place{-34.6, -56}, true
	case "UZ":
		return Place{40.6, 68.5}, true
	case "VA":
		return Place{41.9, 12.45}, true
	case "VC":
		return Place{13.16, -61.22}, true
	case "VE":
		return Place{10, -67.6}, true
	case "VG":
		return Place{18.43, -64.62}, true
	case "VI":
		return Place{18.1, -64.8}, true
	case "VN":
		return Place{15.5, 106.7}, true
	case "VU":
		return Place{-17, 168}, true
	case "WF":
		return Place{-13.3, -176.2}, true
	case "WS":
		return Place{-13.83, -171.8}, true
	case "XK":
		return Place{42.6, 21}, true
	case "YE":
		return Place{14.9, 44.5}, true
	case "YT":
		return Place{-12.8, 45.15}, true
	case "ZA":
		return Place{-27.6, 28.2}, true
	case "ZM":
		return Place{-14, 28.2}, true
	case "ZW":
		return Place{-18.5, 30.6}, true
	}
	return Place{}, false
}
