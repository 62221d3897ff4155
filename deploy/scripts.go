package deploy

import "embed"

//go:embed node/*.sh
var nodeFiles embed.FS

// script returns a script of the folder node, with lib.sh in front.
func script(name string) string {
	var text []byte
	for _, f := range []string{"lib", name} {
		b, err := nodeFiles.ReadFile("node/" + f + ".sh")
		if err != nil {
			panic(err) // the file is embedded
		}
		text = append(text, b...)
	}
	return string(text)
}
