package demo

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"net/http"
	"sync"
	"time"
)

//go:embed site
var files embed.FS

// Site is the site of the demo's origin: a page with a style sheet, a script, pictures, and a
// recording of 40 MB.
type Site struct {
	began time.Time
	mux   *http.ServeMux

	mu    sync.Mutex
	paths map[string]int // requests by path
}

// NewSite returns the site. Its files have the present time as their modification time.
func NewSite() *Site {
	s := &Site{began: time.Now().Truncate(time.Second), mux: http.NewServeMux(), paths: map[string]int{}}
	for path, file := range map[string]string{"/{$}": "index.html", "/style.css": "style.css", "/app.js": "app.js"} {
		b, err := files.ReadFile("site/" + file)
		if err != nil {
			panic(err) // it is in the binary
		}
		s.serve(path, file, "max-age=300", func() io.ReadSeeker { return bytes.NewReader(b) })
	}
	for i, name := range []string{"dawn", "noon", "dusk"} {
		b := picture(i)
		s.serve("/img/"+name+".png", name+".png", "max-age=86400, immutable",
			func() io.ReadSeeker { return bytes.NewReader(b) })
	}
	s.serve("/waves.wav", "waves.wav", "max-age=86400", func() io.ReadSeeker { return new(recording) })
	return s
}

func (s *Site) serve(path, file, cacheControl string, open func() io.ReadSeeker) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", cacheControl)
		w.Header().Set("ETag", fmt.Sprintf(`"%s-%d"`, file, s.began.Unix()))
		w.Header().Set("Surrogate-Key", "demo "+file)
		http.ServeContent(w, r, file, s.began, open())
	})
}

// ServeHTTP serves the site.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if len(s.paths) < 1000 {
		s.paths[r.URL.Path]++
	}
	s.mu.Unlock()
	s.mux.ServeHTTP(w, r)
}

// count returns the number of requests for a path.
func (s *Site) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paths[path]
}

// picture renders hills in one of three lights.
func picture(n int) []byte {
	skies := [3][2]color.NRGBA{{{44, 52, 96, 255}, {250, 176, 140, 255}}, {{64, 140, 220, 255}, {214, 236, 250, 255}},
		{{20, 16, 54, 255}, {206, 74, 92, 255}}}
	const w, h = 960, 540
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	mix := func(a, b uint8, t float64) uint8 { return uint8(float64(a)*(1-t) + float64(b)*t) }
	for x := range w {
		u := float64(x) / w
		for y := range h {
			v := float64(y) / h
			top, low := skies[n][0], skies[n][1]
			c := color.NRGBA{mix(top.R, low.R, v), mix(top.G, low.G, v), mix(top.B, low.B, v), 255}
			for hill := range 4 { // nearer ones are darker
				d := float64(hill)
				line := 0.45 + 0.13*d + 0.06*math.Sin(u*(5+2*d)+d*1.7+float64(n)) + 0.02*math.Sin(u*(23+7*d))
				if v > line {
					shade := 0.75 - 0.2*d
					c = color.NRGBA{uint8(float64(low.R) * shade), uint8(float64(low.G) * shade),
						uint8(float64(low.B) * shade), 255}
				}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err) // writing to a Buffer never fails
	}
	return b.Bytes()
}

// recording is a WAV file of four minutes. It is computed as it is read, so that any part can be
// sent at once. Its pitch rises every five seconds, so that listeners hear the position.
type recording struct{ off int64 }

const (
	sampleRate      = 44100
	recordingLength = 240 // seconds
	wavHeader       = 44
	wavData         = recordingLength * sampleRate * 4 // 16 bits, two channels
	wavSize         = wavHeader + wavData
)

func wavHead() []byte {
	b := append([]byte("RIFF"), binary.LittleEndian.AppendUint32(nil, wavSize-8)...)
	b = append(b, "WAVEfmt "...)
	b = binary.LittleEndian.AppendUint32(b, 16)
	for _, v := range []uint16{1, 2} { // PCM, channels
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, sampleRate)
	b = binary.LittleEndian.AppendUint32(b, sampleRate*4)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = binary.LittleEndian.AppendUint16(b, 16)
	b = append(b, "data"...)
	return binary.LittleEndian.AppendUint32(b, wavData)
}

// frame is one sample for both ears.
func frame(i int64) [4]byte {
	t := float64(i) / sampleRate
	step := math.Floor(t / 5)
	pitch := 220 * math.Pow(2, math.Mod(step*2, 24)/12)
	swell := 0.35 + 0.25*math.Sin(2*math.Pi*t/5)
	left := int16(12000 * swell * math.Sin(2*math.Pi*pitch*t))
	right := int16(12000 * swell * math.Sin(2*math.Pi*pitch*1.005*t))
	return [4]byte{byte(left), byte(left >> 8), byte(right), byte(right >> 8)}
}

func (r *recording) Read(p []byte) (int, error) {
	if r.off >= wavSize {
		return 0, io.EOF
	}
	head := wavHead()
	n := 0
	for n < len(p) && r.off < wavSize {
		if r.off < wavHeader {
			p[n] = head[r.off]
			n, r.off = n+1, r.off+1
			continue
		}
		at := r.off - wavHeader
		f := frame(at / 4)
		c := copy(p[n:], f[at%4:])
		n, r.off = n+c, r.off+int64(c)
	}
	return n, nil
}

// Seek implements io.Seeker.
func (r *recording) Seek(offset int64, whence int) (int64, error) {
	base := map[int]int64{io.SeekStart: 0, io.SeekCurrent: r.off, io.SeekEnd: wavSize}[whence]
	if base+offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.off = base + offset
	return r.off, nil
}
