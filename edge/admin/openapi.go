package admin

import (
	_ "embed" // for the document
	"net/http"
)

// openAPI is the description of the admin listener's API, in OpenAPI 3.1.
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // it fails only if the client is gone
}
