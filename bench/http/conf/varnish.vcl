# Varnish in front of one origin. The built-in VCL follows: what it does for a GET without cookies is what is measured.
# The parameters are in varnish.args.
vcl 4.1;

backend origin {
    .host = "{{.OriginHost}}";
    .port = "{{.OriginPort}}";
}

sub vcl_backend_response {
    set beresp.grace = 1m;
}
