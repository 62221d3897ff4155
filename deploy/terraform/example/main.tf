# User data for two nodes, rendered without any provider:
#
#   for f in fleet.key admin.token; do openssl rand -base64 32 >fleet/$f; done    # for kaiku deploy; keep them out of version control
#   terraform init
#   terraform apply -var binary_url=https://files.example.net/kaiku -var binary_sha256=$(sha256sum bin/kaiku | cut -d ' ' -f 1)
#   terraform output -json user_data
#
# A provider creates machines from the user data. For Hetzner Cloud:
#
#   resource "hcloud_server" "node" {
#     for_each    = { hel1 = "hel1", nyc1 = "ash" }
#     name        = each.key
#     location    = each.value
#     server_type = "cpx11"
#     image       = "debian-12"
#     user_data   = module.fleet.user_data[each.key]
#   }
#
# The fleet file contains the addresses. So reserve them first (hcloud_primary_ip) and assign them
# to the machines.

terraform {
  required_version = ">= 1.4"
}

variable "binary_url" {
  type = string
}

variable "binary_sha256" {
  type = string
}

module "fleet" {
  source        = "../"
  nodes         = { hel1 = {}, nyc1 = {} }
  fleet_file    = "${path.module}/fleet/fleet.yaml"
  files         = { "example.com.zone" = "${path.module}/fleet/example.com.zone" }
  secrets       = {} # { "fleet.key" = var.fleet_key, … } if you accept where that is kept
  start         = false
  binary_url    = var.binary_url
  binary_sha256 = var.binary_sha256
}

output "user_data" {
  value     = module.fleet.user_data
  sensitive = true
}
