package deploy

import "embed"

//go:embed node/*.sh
var nodeFiles embed.FS

// script is one of the folder node, with what begins all.
func script(name string) string {
	var text []byte
	for _, f := range []string{"lib", name} {
		b, err := nodeFiles.ReadFile("node/" + f + ".sh")
		if err != nil {
			panic(err) // the file is built in
		}
		text = append(text, b...)
	}
	return string(text)
}
