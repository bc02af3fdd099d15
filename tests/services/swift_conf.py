"""The configuration of the proxies of :mod:`tests.services.swift_aio`."""

from __future__ import annotations

from tests.services.swift_child import REGION, SERVICE_PASSWORD

PROXY_COMMON = """
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:staticweb]
use = egg:swift#staticweb
[filter:copy]
use = egg:swift#copy
[filter:container_quotas]
use = egg:swift#container_quotas
[filter:account_quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
min_segment_size = 1
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""
PIPE_HEAD = "catch_errors gatekeeper healthcheck fault listing_formats bulk tempurl"
PIPE_TAIL = "staticweb copy container_quotas account_quotas slo dlo versioned_writes symlink proxy-server"


def proxy_tempauth_conf(fernet_key, token_life):
    # fernet_key_* + active_fernet_key_id: TempAuth then needs no memcached.
    return f"""
[pipeline:main]
pipeline = {PIPE_HEAD} s3api tempauth {PIPE_TAIL}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_tester3 = testing3
user_admin_admin = admin .admin .reseller_admin
token_life = {token_life}
fernet_key_a = {fernet_key}
active_fernet_key_id = a
""" + PROXY_COMMON.format(region=REGION)


def proxy_keystone_conf(ks_url, cacert=None):
    service = f"""{f"cafile = {cacert}" if cacert else ""}
auth_type = password
auth_url = {ks_url}
username = swift
password = {SERVICE_PASSWORD}
project_name = service
user_domain_id = default
project_domain_id = default
"""
    return f"""
[pipeline:main]
pipeline = {PIPE_HEAD} s3api authtoken s3token keystoneauth {PIPE_TAIL}
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {ks_url}
{service}delay_auth_decision = true
include_service_catalog = false
service_token_roles_required = true
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
[filter:s3token]
use = egg:swift#s3token
auth_uri = {ks_url}
delay_auth_decision = true
{service}""" + PROXY_COMMON.format(region=REGION)


FAULT = """
[filter:fault]
paste.filter_factory = {module}:fault_factory
file = {run}/fault-{name}.json
"""
