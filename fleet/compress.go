package fleet

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
)

// compress returns a value as compressed JSON.
func compress(v any) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(json.NewEncoder(w).Encode(v), w.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decompress decodes a value that has at most limit bytes of JSON.
func decompress(b []byte, limit int64, v any) error {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return err
	}
	return json.NewDecoder(io.LimitReader(z, limit)).Decode(v)
}
