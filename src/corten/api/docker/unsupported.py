"""Operations of the API that are not served, each by its name in the API's description: 501, and nothing pretends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corten.errors import NotImplementedYet

if TYPE_CHECKING:
    from aiohttp import web

    from corten.api.docker.call import Call
    from corten.api.docker.routing import Handler, Router

OPERATIONS = """
POST   /build                         ImageBuild
POST   /build/prune                   BuildPrune
POST   /build/cancel                  BuildCancel
GET    /images/{name...}/attestations ImageAttestations
PUT    /volumes/{name}                VolumeUpdate
DELETE /networks/{id}                 NetworkDelete
POST   /networks/create               NetworkCreate
POST   /networks/{id}/connect         NetworkConnect
POST   /networks/{id}/disconnect      NetworkDisconnect
POST   /networks/prune                NetworkPrune
GET    /plugins/privileges            GetPluginPrivileges
POST   /plugins/pull                  PluginPull
DELETE /plugins/{name...}             PluginDelete
POST   /plugins/{name...}/enable      PluginEnable
POST   /plugins/{name...}/disable     PluginDisable
POST   /plugins/{name...}/upgrade     PluginUpgrade
POST   /plugins/create                PluginCreate
POST   /plugins/{name...}/push        PluginPush
POST   /plugins/{name...}/set         PluginSet
GET    /nodes                         NodeList
GET    /nodes/{id}                    NodeInspect
DELETE /nodes/{id}                    NodeDelete
POST   /nodes/{id}/update             NodeUpdate
GET    /swarm                         SwarmInspect
POST   /swarm/init                    SwarmInit
POST   /swarm/join                    SwarmJoin
POST   /swarm/leave                   SwarmLeave
POST   /swarm/update                  SwarmUpdate
GET    /swarm/unlockkey               SwarmUnlockkey
POST   /swarm/unlock                  SwarmUnlock
GET    /services                      ServiceList
POST   /services/create               ServiceCreate
GET    /services/{id}                 ServiceInspect
DELETE /services/{id}                 ServiceDelete
POST   /services/{id}/update          ServiceUpdate
GET    /services/{id}/logs            ServiceLogs
GET    /tasks                         TaskList
GET    /tasks/{id}                    TaskInspect
GET    /tasks/{id}/logs               TaskLogs
GET    /secrets                       SecretList
POST   /secrets/create                SecretCreate
GET    /secrets/{id}                  SecretInspect
DELETE /secrets/{id}                  SecretDelete
POST   /secrets/{id}/update           SecretUpdate
GET    /configs                       ConfigList
POST   /configs/create                ConfigCreate
GET    /configs/{id}                  ConfigInspect
DELETE /configs/{id}                  ConfigDelete
POST   /configs/{id}/update           ConfigUpdate
POST   /session                       Session
POST   /grpc                          Grpc
"""


def add_routes(router: Router) -> None:
    for line in OPERATIONS.split("\n"):
        if line:
            method, path, operation = line.split()
            router.add(method, path, _refuse(operation))


def _refuse(operation: str) -> Handler:
    async def refuse(call: Call) -> web.StreamResponse:
        raise NotImplementedYet(f"{operation} is not implemented by this daemon")

    return refuse
