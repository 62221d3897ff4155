package storage_test

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/kaiku-cdn/kaiku/storage"
)

// An object is written, read, and covered by a purge of one of its tags.
func Example() {
	dir, err := os.MkdirTemp("", "kaiku-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := storage.Open(storage.Options{Dir: dir, Floor: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer s.Close()

	const url = "https://www.example.com/style.css"
	w := s.Create(storage.Header{Key: url, URL: url, Epoch: s.Epoch()})
	defer w.Close()
	if _, err := io.WriteString(w, "body {}"); err != nil {
		panic(err)
	}
	if _, err := w.Commit([]string{"css"}, []byte("what the caller wants to know later")); err != nil {
		panic(err)
	}

	o := s.Get(url)
	body, err := o.Open(0, o.Size())
	if err != nil {
		panic(err)
	}
	text, err := io.ReadAll(body)
	body.Close()
	fmt.Printf("%s, %v\n", text, err)

	if _, err := s.Purge(storage.Purge{Tags: []string{"css"}}); err != nil {
		panic(err)
	}
	fmt.Println(s.Get(url) == nil)
	// Output:
	// body {}, <nil>
	// true
}
