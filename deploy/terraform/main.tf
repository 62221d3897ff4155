# Renders cloud-init user data for the nodes of a fleet. It needs no provider. Pass its output to
# the machines of any provider.

terraform {
  required_version = ">= 1.4"
}

variable "nodes" {
  description = "The nodes by their names in the fleet file. secrets are a node's own, by path, and come before those of all: as its credential in place of the fleet key."
  type = map(object({
    secrets = optional(map(string), {})
  }))
  validation {
    condition     = alltrue([for name in keys(var.nodes) : can(regex("^[a-z0-9-]+$", name))])
    error_message = "Names of nodes have letters a-z, digits and -."
  }
}

variable "fleet_file" {
  description = "The path of fleet.yaml here."
  type        = string
}

variable "files" {
  description = "What the fleet file names, such as zones: the path below /etc/kaiku, and the path here."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for path in keys(var.files) : can(regex("^[A-Za-z0-9._+-][A-Za-z0-9._/+-]*$", path))])
    error_message = "Paths below /etc/kaiku, of letters, digits and ._-+/."
  }
}

variable "secrets" {
  description = "What is secret of that: the path below /etc/kaiku, and the content. It will be in Terraform's state and in the user data of the machines, which whoever may ask the provider's metadata service can read; leave it empty, with start = false, to have `kaiku deploy` bring it."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for path in keys(var.secrets) : can(regex("^[A-Za-z0-9._+-][A-Za-z0-9._/+-]*$", path))])
    error_message = "Paths below /etc/kaiku, of letters, digits and ._-+/."
  }
}

variable "binary_url" {
  description = "Where machines fetch the binary from."
  type        = string
  validation {
    condition     = can(regex("^[a-z]+://[^[:space:]'\"$`\\\\;&|<>()]+$", var.binary_url))
    error_message = "A URL without spaces, quotes and other characters of the shell."
  }
}

variable "binary_sha256" {
  description = "The SHA-256 of the binary, which machines check."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.binary_sha256))
    error_message = "64 hexadecimal digits, as sha256sum prints them."
  }
}

variable "start" {
  description = "Whether nodes start at once. Without their secrets they can't."
  type        = bool
  default     = true
}

locals {
  files = merge(
    { "/etc/kaiku/fleet.yaml" = file(var.fleet_file) },
    { for path, from in var.files : "/etc/kaiku/${path}" => file(from) },
  )
  user_data = {
    for name, node in var.nodes : name => templatefile("${path.module}/../cloud-init/kaiku.yaml", {
      node          = name
      files         = local.files
      secrets       = { for path, content in merge(var.secrets, node.secrets) : "/etc/kaiku/${path}" => content }
      binary_url    = var.binary_url
      binary_sha256 = var.binary_sha256
      start         = var.start
    })
  }
}

output "user_data" {
  description = "User data by the name of the node."
  value       = local.user_data
  sensitive   = true
}
